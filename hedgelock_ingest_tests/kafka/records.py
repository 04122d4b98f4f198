"""Records to publish, and the journal positions of records found in a topic."""

import os
from collections.abc import Iterable, Sequence
from uuid import UUID

from hedgelock_ingest.kafka.publisher import Publisher
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.translate.record import Record, Refusal
from hedgelock_ingest_tests.kafka.clusters import FoundRecord

KEY = b"linear:BTCUSDT"


def a_record(
    position: int, *, value_bytes: int = 100, topic: Topic = Topic.MARKET_TRADES, received_ns: int = 1_000_000
) -> Record:
    """Build a record of one fixed key whose value does not compress."""
    value = os.urandom(value_bytes)
    return Record(topic, KEY, value, position, 0, str(UUID(int=position)), 1, received_ns)


def positions_of(found: Iterable[FoundRecord]) -> list[int]:
    """Return the journal positions of records; those without headers are not ours and are left out."""
    return [int(dict(record.headers)["journal-position"]) for record in found if record.headers]


async def refused_of(publisher: Publisher, records: Sequence[Record]) -> list[Refusal]:
    """Publish records, and return those that are refused for good."""
    found: list[Refusal] = []

    async def keep(refused: Sequence[Refusal]) -> None:
        found.extend(refused)

    await publisher.publish(records, keep)
    return found
