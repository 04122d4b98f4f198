"""What has arrived: the tails of the topics, read back before anything is published."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError as AiokafkaError

from hedgelock_ingest.errors import KafkaUnavailable
from hedgelock_ingest.kafka.connecting import client_options
from hedgelock_ingest.kafka.headers import TracedName, traced_name_in
from hedgelock_ingest.settings import Settings

log = structlog.get_logger(__name__)

QUIET_S = 0.3
LONGEST_SETTLING = 7
"""How many times `QUIET_S`."""
REQUEST_TIMEOUT_S = 15.0
_READ_TIMEOUT_MS = 1_000

type Offsets = dict[str, dict[int, int]]
"""By topic and partition, the offset after the last record of ours that is known to be there."""


@dataclass(slots=True)
class Arrived:
    """
    What Kafka holds of a journal after the offsets that were known: names of records by topic, and the new offsets.
    """

    records: dict[str, set[TracedName]] = field(default_factory=dict)
    offsets: Offsets = field(default_factory=dict)
    scanned: int = 0
    last_position: int = 0


async def read_arrived(
    settings: Settings, topics: Mapping[str, int], journal_id: bytes, known: Offsets | None, *, settle: bool
) -> Arrived:
    """
    Read every topic from the known offsets to its end.

    Args:
        topics: Kafka's names, with the number of partitions.
        known: What the saved state says; None when this journal has published nothing yet, so that only the ends
            are of interest.
        settle: The last owner ended uncleanly. Its bytes may still lie in a stalled broker's sockets, so wait until
            the leaders have answered and the ends have not moved for `QUIET_S`.

    Raises:
        KafkaUnavailable: Kafka did not answer, or not in time.
    """
    consumer = AIOKafkaConsumer(
        **client_options(settings),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        request_timeout_ms=int(REQUEST_TIMEOUT_S * 1000),
        fetch_max_wait_ms=50,
        max_partition_fetch_bytes=4 * 1024 * 1024,
        retry_backoff_ms=300,
    )
    try:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                await consumer.start()
                partitions = [TopicPartition(name, n) for name, count in topics.items() for n in range(count)]
                consumer.assign(partitions)
                ends = await _settled_ends(consumer, partitions, settle=settle)
                starts = await _starts(consumer, partitions, ends, known)
            return await _scan(consumer, starts, ends, journal_id)
        finally:
            await asyncio.wait_for(consumer.stop(), timeout=REQUEST_TIMEOUT_S)
    except TimeoutError as error:
        raise KafkaUnavailable(f"no answer within {REQUEST_TIMEOUT_S:g} s while reading what has arrived") from error
    except (AiokafkaError, OSError) as error:
        raise KafkaUnavailable(f"{type(error).__name__} while reading what has arrived") from error


async def _settled_ends(
    consumer: AIOKafkaConsumer, partitions: list[TopicPartition], *, settle: bool
) -> dict[TopicPartition, int]:
    ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
    # Bounded, because other shards may be writing to the same partitions all the time.
    for _ in range(LONGEST_SETTLING if settle else 0):
        await asyncio.sleep(QUIET_S)
        later: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
        if later == ends:
            break
        ends = later
    return ends


async def _starts(
    consumer: AIOKafkaConsumer,
    partitions: list[TopicPartition],
    ends: Mapping[TopicPartition, int],
    known: Offsets | None,
) -> dict[TopicPartition, int]:
    if known is None:
        return dict(ends)
    begins: dict[TopicPartition, int] = await consumer.beginning_offsets(partitions)
    starts = {}
    for partition in partitions:
        offset = known.get(partition.topic, {}).get(partition.partition, begins[partition])
        if offset > ends[partition]:
            log.warning("topic_recreated", topic=partition.topic, partition=partition.partition, offset=offset)
            offset = begins[partition]
        starts[partition] = max(offset, begins[partition])
    return starts


async def _scan(
    consumer: AIOKafkaConsumer,
    starts: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
    journal_id: bytes,
) -> Arrived:
    arrived = Arrived()
    for partition, end in ends.items():
        arrived.offsets.setdefault(partition.topic, {})[partition.partition] = end
        arrived.records.setdefault(partition.topic, set())
    left = {partition for partition, start in starts.items() if start < ends[partition]}
    for partition in left:
        consumer.seek(partition, starts[partition])
    while left:
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            fetched = await consumer.getmany(*left, timeout_ms=_READ_TIMEOUT_MS, max_records=20_000)
            for partition, messages in fetched.items():
                arrived.scanned += len(messages)
                names = arrived.records[partition.topic]
                names.update(name for m in messages if (name := traced_name_in(m.headers, journal_id)) is not None)
            left = {partition for partition in left if await consumer.position(partition) < ends[partition]}
    positions = (name[0] for by_topic in arrived.records.values() for name in by_topic)
    arrived.last_position = max(positions, default=0)
    return arrived
