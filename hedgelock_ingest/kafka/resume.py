"""Resume after a restart: the tails of the topics are read back before anything is published."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError as AiokafkaError

from hedgelock_ingest.clock import Clock
from hedgelock_ingest.errors import KafkaUnavailable
from hedgelock_ingest.kafka.headers import TracedName, traced_name_in
from hedgelock_ingest.kafka.ports import Cluster, EndOffsets, KafkaTiming, TailReader
from hedgelock_ingest.models.topics import Offsets

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class ArrivedRecords:
    """
    Records of a journal found in Kafka after the known offsets: their names by topic, and the new offsets.
    """

    records: dict[str, set[TracedName]] = field(default_factory=dict)
    offsets: Offsets = field(default_factory=dict)
    last_position: int = 0


async def read_arrived(
    cluster: Cluster,
    topics: Mapping[str, int],
    journal_id: bytes,
    known: Offsets | None,
    *,
    settle: bool,
    clock: Clock,
    timing: KafkaTiming,
) -> ArrivedRecords:
    """
    Read every topic from the known offsets to its end.

    Args:
        cluster: The cluster that holds the topics.
        topics: Number of partitions by Kafka topic name.
        journal_id: The journal whose records are collected.
        known: The offsets of the saved state; None when this journal has published nothing yet, so that only the ends
            are needed. A topic without any, such as that of a new route, is read from its beginning: an earlier owner
            with the same route may have written to it.
        settle: The last owner ended uncleanly. Its bytes may still lie in a stalled broker's sockets, so wait until
            the leaders have answered and the ends have not moved for the timing's `quiet_s`.
        clock: The clock of all waits.
        timing: The durations of all waits.

    Raises:
        KafkaUnavailable: No answer, or not in time.
    """
    reader = cluster.reader()
    timeout_s = timing.request_timeout_s
    partitions = [TopicPartition(name, number) for name, count in topics.items() for number in range(count)]
    try:
        try:
            async with clock.timeout(timeout_s):
                await reader.open(partitions)
                ends = await reader.ends(partitions)
                if settle:
                    ends = await _settled_ends(reader, ends, clock, timing)
                starts = await _starts(reader, ends, known)
            return await _scan(reader, starts, ends, journal_id, clock=clock, timeout_s=timeout_s)
        finally:
            await reader.close()
    except TimeoutError as error:
        raise KafkaUnavailable(
            f"no answer within {timeout_s:g} s while reading back the tails of the topics"
        ) from error
    except (AiokafkaError, OSError) as error:
        raise KafkaUnavailable(f"{type(error).__name__} while reading back the tails of the topics") from error


async def _settled_ends(reader: TailReader, ends: EndOffsets, clock: Clock, timing: KafkaTiming) -> EndOffsets:
    # Bounded, because other shards may write to the same partitions without a pause.
    for _ in range(timing.max_settling_rounds):
        await clock.sleep(timing.quiet_s)
        asked_s = clock.monotonic()
        later = await reader.ends(list(ends))
        # A broker that was frozen meanwhile may answer before it takes the bytes that waited beside the request.
        is_prompt = clock.monotonic() - asked_s < timing.quiet_s
        if later == ends and is_prompt:
            break
        ends = later
    return ends


async def _starts(reader: TailReader, ends: EndOffsets, known: Offsets | None) -> EndOffsets:
    if known is None:
        return dict(ends)
    begins = await reader.begins(list(ends))
    starts = {}
    for partition, end in ends.items():
        offset = known.get(partition.topic, {}).get(partition.partition, begins[partition])
        if offset > end:
            log.warning("topic_recreated", topic=partition.topic, partition=partition.partition, offset=offset)
            offset = begins[partition]
        starts[partition] = max(offset, begins[partition])
    return starts


async def _scan(
    reader: TailReader,
    starts: EndOffsets,
    ends: EndOffsets,
    journal_id: bytes,
    *,
    clock: Clock,
    timeout_s: float,
) -> ArrivedRecords:
    """Read the records from `starts` to `ends`; each step may take `timeout_s`."""
    arrived = ArrivedRecords()
    for partition, end in ends.items():
        arrived.offsets.setdefault(partition.topic, {})[partition.partition] = end
        arrived.records.setdefault(partition.topic, set())
    steps = reader.read(starts, ends)
    while True:
        async with clock.timeout(timeout_s):
            fetched = await anext(steps, None)
        if fetched is None:
            break
        for partition, headers in fetched.items():
            names = arrived.records[partition.topic]
            names.update(name for each in headers if (name := traced_name_in(each, journal_id)) is not None)
    positions = (name[0] for by_topic in arrived.records.values() for name in by_topic)
    arrived.last_position = max(positions, default=0)
    return arrived
