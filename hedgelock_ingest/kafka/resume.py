"""Resume after a restart: the tails of the topics are read back before anything is published."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Self

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError as AiokafkaError

from hedgelock_ingest.clock import Clock
from hedgelock_ingest.errors import KafkaUnavailable
from hedgelock_ingest.kafka.headers import RecordName, TracedName, traced_name_in
from hedgelock_ingest.kafka.ports import Cluster, EndOffsets, KafkaTiming, TailReader
from hedgelock_ingest.models.topics import Offsets

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class ArrivedRecords:
    """
    Records of a journal that are known to be in Kafka.

    Args:
        names: Those found after the known offsets, by topic.
        through: By partition, the record up to which all have arrived: acknowledged in this process, or found in a
            compacted topic, where a later record of the same key may have replaced the earlier ones.
        offsets: The offsets up to which that is known.
        last_position: Position up to which a record may have arrived; those after it are new.
    """

    names: dict[str, set[TracedName]] = field(default_factory=dict)
    through: dict[TopicPartition, RecordName] = field(default_factory=dict)
    offsets: Offsets = field(default_factory=dict)
    last_position: int = 0

    def has(self, name: TracedName, partition: TopicPartition) -> bool:
        """Return whether a record, which is sent to this partition, has arrived."""
        return name[:2] <= self.through.get(partition, _NONE) or name in self.names[partition.topic]

    def expect_again(self) -> None:
        """Note that records from before the last ones follow."""
        positions = [name[0] for by_topic in self.names.values() for name in by_topic]
        positions += [position for position, _ in self.through.values()]
        self.last_position = max(positions, default=0)

    def of_layout(self, topics: Mapping[str, int]) -> Self:
        """Return what still holds for topics with these numbers of partitions: in others the keys have moved."""
        same = {name for name, count in topics.items() if len(self.offsets.get(name, ())) == count}
        return type(self)(
            names={name: set(self.names.get(name, ())) for name in topics},
            through={partition: name for partition, name in self.through.items() if partition.topic in same},
            offsets={name: dict(self.offsets[name]) for name in same},
        )


_NONE: RecordName = (0, -1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumePoint:
    """
    Where a publisher continues.

    Args:
        known: The offsets of the saved state; None when this journal has published nothing yet, so that only the ends
            are needed. A topic without any, such as that of a new route, is read from its beginning: an earlier owner
            with the same route may have written to it.
        settle: The last owner ended uncleanly. Its bytes may still lie in a stalled broker's sockets, so wait until
            the leaders have answered and the ends have not moved for the timing's `quiet_s`.
        journal_end: The journal's last position when this process opened it. Records that are found after it were
            written from another copy of the journal, which reused the positions.
        earlier: What this process knew already.
    """

    known: Offsets | None
    settle: bool
    journal_end: int = 0
    earlier: ArrivedRecords = field(default_factory=ArrivedRecords)


async def read_arrived(
    cluster: Cluster,
    topics: Mapping[str, int],
    journal_id: bytes,
    point: ResumePoint,
    *,
    compacted: Collection[str],
    clock: Clock,
    timing: KafkaTiming,
) -> ArrivedRecords:
    """
    Read every topic from the point to its end.

    Args:
        cluster: The cluster that holds the topics.
        topics: Number of partitions by Kafka topic name.
        journal_id: The journal whose records are collected.
        point: Where to begin.
        compacted: The topics that keep only the last record of a key.
        clock: The clock of all waits.
        timing: The durations of all waits.

    Raises:
        KafkaUnavailable: No answer, or not in time.
    """
    reader = cluster.reader()
    timeout_s = timing.request_timeout_s
    partitions = [TopicPartition(name, number) for name, count in topics.items() for number in range(count)]
    arrived = point.earlier.of_layout(topics)
    try:
        try:
            async with clock.timeout(timeout_s):
                await reader.open(partitions)
                ends = await reader.ends(partitions)
                if point.settle:
                    ends = await _settled_ends(reader, ends, clock, timing)
                starts = await _starts(reader, ends, point.known, arrived)
            in_order = {
                partition: None if _is_continued(partition, arrived) else point.journal_end
                for partition in partitions
                if partition.topic in compacted
                and (_is_continued(partition, arrived) or _has_layout(point.known, partition.topic, topics))
            }
            await _scan(arrived, reader, starts, ends, journal_id, in_order, clock=clock, timeout_s=timeout_s)
        finally:
            await reader.close()
    except TimeoutError as error:
        raise KafkaUnavailable(
            f"no answer within {timeout_s:g} s while reading back the tails of the topics"
        ) from error
    except (AiokafkaError, OSError) as error:
        raise KafkaUnavailable(f"{type(error).__name__} while reading back the tails of the topics") from error
    arrived.expect_again()
    return arrived


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


async def _starts(reader: TailReader, ends: EndOffsets, known: Offsets | None, arrived: ArrivedRecords) -> EndOffsets:
    if known is None:
        return dict(ends)
    begins = await reader.begins(list(ends))
    starts = {}
    for partition, end in ends.items():
        topic, number = partition
        offset = arrived.offsets.get(topic, {}).get(number)
        if offset is None or offset > end:  # a leader has lost records that were acknowledged, or the topic is another
            arrived.through.pop(partition, None)
            arrived.offsets.get(topic, {}).pop(number, None)
            offset = known.get(topic, {}).get(number, begins[partition])
        if offset > end:
            log.warning("topic_recreated", topic=topic, partition=number, offset=offset)
            offset = begins[partition]
        starts[partition] = max(offset, begins[partition])
    return starts


def _is_continued(partition: TopicPartition, arrived: ArrivedRecords) -> bool:
    return partition.partition in arrived.offsets.get(partition.topic, {})


def _has_layout(known: Offsets | None, topic: str, topics: Mapping[str, int]) -> bool:
    """Return whether a topic had as many partitions when its offsets were saved, as far as they are known."""
    return not known or len(known.get(topic, ())) == topics[topic]


async def _scan(
    arrived: ArrivedRecords,
    reader: TailReader,
    starts: EndOffsets,
    ends: EndOffsets,
    journal_id: bytes,
    in_order: Mapping[TopicPartition, int | None],
    *,
    clock: Clock,
    timeout_s: float,
) -> None:
    """
    Add the records from `starts` to `ends`; each step may take `timeout_s`.

    `in_order` are the partitions in which a record proves that all earlier ones have arrived, each with the last
    position that may do so.
    """
    steps = reader.read(starts, ends)
    while True:
        async with clock.timeout(timeout_s):
            fetched = await anext(steps, None)
        if fetched is None:
            break
        for partition, headers in fetched.items():
            found = {name for each in headers if (name := traced_name_in(each, journal_id)) is not None}
            arrived.names[partition.topic] |= found
            if partition in in_order:
                end = in_order[partition]
                proving = [name[:2] for name in found if end is None or name[0] <= end]
                arrived.through[partition] = max([arrived.through.get(partition, _NONE), *proving])
    for partition, end in ends.items():
        arrived.offsets.setdefault(partition.topic, {})[partition.partition] = end
