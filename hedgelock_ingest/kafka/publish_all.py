"""Publishing of records that are not part of a stream: open a publisher, publish all in groups, close it."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from itertools import batched

from hedgelock_ingest.errors import KafkaUnavailable
from hedgelock_ingest.kafka.publisher import Publisher
from hedgelock_ingest.models.topics import Offsets
from hedgelock_ingest.translate.record import Record

_GROUP_RECORDS = 500


@asynccontextmanager
async def opened(publisher: Publisher, known: Offsets | None, *, settle: bool) -> AsyncIterator[Publisher]:
    """Open a publisher, as `Publisher.open` describes, and close it at the end of the block."""
    try:
        await publisher.open(known, settle=settle)
        yield publisher
    finally:
        await publisher.close()


async def publish_all(publisher: Publisher, records: Iterable[Record]) -> int:
    """
    Publish records in groups, and return their number, including those that had arrived before.

    Raises:
        RecordRefused: Kafka refuses one permanently; those after its group are not published.
        KafkaError: As `Publisher.publish`.
    """
    count = 0
    for group in batched(records, _GROUP_RECORDS):
        await publisher.publish(group)
        if publisher.is_behind:
            raise KafkaUnavailable("; ".join(f"{topic}: {reason}" for topic, reason in publisher.blocked.items()))
        count += len(group)
    return count
