"""Records to publish, and what is found of them in a topic."""

import os
from collections.abc import Iterable
from uuid import UUID

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.translate.record import Record
from hedgelock_ingest_tests.kafka.stands import FoundRecord

KEY = b"linear:BTCUSDT"


def a_record(position: int, *, value_bytes: int = 100, topic: Topic = Topic.MARKET_TRADES) -> Record:
    """Make a record of one key whose value does not compress."""
    value = os.urandom(value_bytes)
    return Record(topic, KEY, value, position, 0, str(UUID(int=position)), 1, 1_000_000)


def positions_of(found: Iterable[FoundRecord]) -> list[int]:
    """Read the positions in the journal; records without headers are not ours."""
    return [int(dict(record.headers)["journal-position"]) for record in found if record.headers]
