"""The publisher of records: idempotent, acknowledged by all replicas, in order, and exactly once over restarts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError as AiokafkaError
from aiokafka.errors import MessageSizeTooLargeError
from aiokafka.partitioner import murmur2

from hedgelock_ingest.clock import Clock, wall_ms
from hedgelock_ingest.errors import KafkaUnavailable, ProducerSpent, TopicMismatch
from hedgelock_ingest.kafka.batch_format import Codec, RecordBatch, with_length
from hedgelock_ingest.kafka.batch_sender import BatchSender
from hedgelock_ingest.kafka.headers import HeaderEncoder, RecordName
from hedgelock_ingest.kafka.ports import Cluster, KafkaTiming, ProducerSession
from hedgelock_ingest.kafka.resume import ArrivedRecords, read_arrived
from hedgelock_ingest.kafka.routes import addressed, copy_of
from hedgelock_ingest.kafka.topic_admin import TopicReport
from hedgelock_ingest.models.topics import Offsets, Topic
from hedgelock_ingest.settings import Settings
from hedgelock_ingest.translate.record import Record, Refusal

_BATCH_BYTES = 256 * 1024
_OVERHEAD_BYTES = 1_024  # upper bound for a batch header and the headers of a record
_MAX_DEAD_LETTER_BYTES = 700_000 * 4 // 3 + 4_096


class _Batch(RecordBatch):
    """A batch that keeps its first record."""

    __slots__ = ("first",)

    def __init__(self, first: Record, limit: int, codec: Codec) -> None:
        super().__init__(limit, codec)
        self.first = first


@dataclass(frozen=True, eq=False, slots=True)
class _Partition:
    """A partition, hashed by identity, which is faster than hashing its name."""

    topic_partition: TopicPartition


@dataclass(frozen=True, slots=True)
class _Target:
    """The topic of a type of records, its own or a further one; the targets of one topic share its partitions."""

    name: str
    largest_bytes: int
    partitions: Sequence[_Partition]
    routes: dict[bytes, tuple[_Partition, bytes]] = field(default_factory=dict)

    def route(self, key: bytes) -> tuple[_Partition, bytes]:
        """Return the partition of a key, and the key as encoded in records."""
        partition = self.partitions[partition_for(key, len(self.partitions))]
        found = self.routes[key] = (partition, with_length(key))
        return found


class Publisher:
    """
    Publishes records through one producer at a time: `open` creates it, `publish` sends, `close` ends it.

    A record is sent to its topic, and as a copy to the further topics of `KAFKA_ROUTES`.

    After any error of `publish` the producer is unusable: call `open` again, and continue from the journal.
    """

    def __init__(
        self,
        settings: Settings,
        journal_id: str,
        *,
        cluster: Cluster,
        clock: Clock,
        timing: KafkaTiming,
    ) -> None:
        """Prepare; nothing is connected."""
        self._cluster = cluster
        self._clock = clock
        self._timing = timing
        self._journal_id = journal_id.encode()
        self._headers = HeaderEncoder(self._journal_id)
        self._codec = Codec[settings.kafka_compression.upper()]
        self._session: ProducerSession | None = None
        self._sender: BatchSender | None = None
        self._further_topics = settings.further_topics
        self._home: dict[Topic, _Target] = {}
        self._further: dict[Topic, list[_Target]] = {}
        self._arrived = ArrivedRecords()
        self._known: Offsets | None = None
        self._largest_batch_bytes = _BATCH_BYTES
        self._one_by_one = False
        self._too_large: set[tuple[str, RecordName]] = set()
        self.topics: list[TopicReport] = []

    def offsets_at(self, position: int) -> Offsets:
        """
        Return offsets before all records of frames after `position`, up to which all records are acknowledged.

        While records that had already arrived lie after `position`, these are the offsets that were passed to `open`.
        """
        if self._known is not None and position < self._arrived.last_position:
            return self._known
        return {topic: dict(by_partition) for topic, by_partition in self._arrived.offsets.items()}

    async def open(self, known: Offsets | None, *, settle: bool) -> None:
        """
        Connect, check the topics, and read back this journal's records after the `known` offsets.

        Raises:
            KafkaUnavailable: No answer, or not in time.
            TopicMismatch: A topic is missing and may not be created.
        """
        await self.close()
        self._known = known
        self.topics = await self._cluster.topics()
        self._address()
        names = {report.name: report.partitions for report in self.topics}
        self._arrived = await read_arrived(
            self._cluster, names, self._journal_id, known, settle=settle, clock=self._clock, timing=self._timing
        )
        self._session = session = self._cluster.producer()
        open_timeout_s = self._timing.open_timeout_s
        try:
            async with self._clock.timeout(open_timeout_s):
                await session.open(names)
        except TimeoutError as error:
            raise KafkaUnavailable(f"the producer could not connect within {open_timeout_s:g} s") from error
        except (AiokafkaError, OSError) as error:
            raise KafkaUnavailable(f"{type(error).__name__} while the producer connected") from error
        self._sender = BatchSender(session, self._clock, self._timing)

    async def publish(self, records: Sequence[Record]) -> list[Refusal]:
        """
        Send records and wait until all are acknowledged; skip those that had arrived before.

        Returns:
            The records, or copies, that Kafka refuses permanently.

        Raises:
            KafkaUnavailable: Not acknowledged within `delivery_timeout_s` of the timing.
            ProducerSpent: Kafka refused a batch, so this producer can no longer keep order.
        """
        if self._sender is None:
            raise KafkaUnavailable("the producer is not open")
        batches, refused = self._batches(records)
        try:
            async with self._clock.timeout(self._timing.delivery_timeout_s):
                for round_of_batches in zip_longest(*batches.values()):
                    await self._publish_round(self._sender, batches, round_of_batches)
        except TimeoutError as error:
            raise KafkaUnavailable(f"records not acknowledged within {self._timing.delivery_timeout_s:g} s") from error
        except (AiokafkaError, OSError) as error:
            raise ProducerSpent(f"{type(error).__name__} from Kafka") from error
        return refused

    async def _publish_round(
        self, sender: BatchSender, partitions: Iterable[_Partition], batches: Sequence[_Batch | None]
    ) -> None:
        """
        Send one batch per partition, and wait for all of them before the next round.

        A broker without state for a producer accepts any sequence number from it. After a refused first batch the next
        one would be accepted, and the refused records would follow out of order.

        Source: Apache Kafka, `ProducerAppendInfo.checkSequence`.
        """
        sent = {
            partition.topic_partition: batch
            for partition, batch in zip(partitions, batches, strict=True)
            if batch is not None
        }
        answers = await sender.send(sent)
        failure: AiokafkaError | None = None
        for partition, answer in answers.items():
            batch = sent[partition]
            if isinstance(answer, int):
                self._note_offset(partition, answer, batch.count)
                continue
            failure = failure or answer
            if isinstance(answer, MessageSizeTooLargeError):
                if batch.count == 1:
                    self._too_large.add((partition.topic, _name(batch.first)))
                self._one_by_one = True
        if failure is not None:
            raise ProducerSpent(f"{type(failure).__name__} from Kafka") from failure

    def note_arrived(self, record: Record, topic: str) -> None:
        """Count a record, or its copy, as arrived in a topic by Kafka's name: it is there under another name."""
        home = self._home[record.topic]
        noted = record if topic == home.name else copy_of(record)
        self._arrived.records[topic].add((*_name(noted), noted.trace_id.encode()))
        self._arrived.last_position = max(self._arrived.last_position, noted.position)

    async def close(self) -> None:
        """Close the producer, if there is one, in bounded time whatever state it is in."""
        session, self._session, self._sender = self._session, None, None
        if session is not None:
            await session.close()

    def _address(self) -> None:
        partitions, limits = {}, {}
        for report in self.topics:
            if not report.exists:
                raise _missing(report.name)
            partitions[report.name] = [
                _Partition(TopicPartition(report.name, number)) for number in range(report.partitions)
            ]
            limits[report.name] = report.assumed_max_message_bytes - _OVERHEAD_BYTES
        self._largest_batch_bytes = min(_BATCH_BYTES, *limits.values())

        def target(topic: Topic, name: str) -> _Target:
            is_letter = topic is Topic.INGEST_DEAD_LETTERS
            largest = min(limits[name], _MAX_DEAD_LETTER_BYTES) if is_letter else limits[name]
            return _Target(name, largest, partitions[name])

        own_names = {report.topic: report.name for report in self.topics if report.topic is not None}
        self._home = {topic: target(topic, name) for topic, name in own_names.items()}
        self._further = {
            topic: [target(topic, name) for name in names] for topic, names in self._further_topics.items()
        }

    def _batches(self, records: Sequence[Record]) -> tuple[dict[_Partition, list[_Batch]], list[Refusal]]:
        """Group records into batches, in order within a partition; this is the hot path."""
        batches: dict[_Partition, list[_Batch]] = {}
        refused: list[Refusal] = []
        encode_headers, arrived_through = self._headers.encode, self._arrived.last_position
        now_ms = wall_ms(self._clock)
        for record, target in addressed(records, self._home, self._further):
            value = record.value
            if record.position <= arrived_through and self._has_arrived(record, target):
                continue
            if len(value) > target.largest_bytes or (self._too_large and self._is_too_large(record, target)):
                refused.append(Refusal(record, f"{len(value)} bytes, more than the topic {target.name} takes"))
                continue
            headers = encode_headers(record)
            # Kafka refuses a time over an hour ahead: one frame of a wrong clock would block publishing for good.
            at_ms = record.received_ns // 1_000_000
            if at_ms > now_ms:
                at_ms = now_ms
            partition, key = target.routes.get(record.key) or target.route(record.key)
            queue = batches.get(partition)
            if queue is None:
                queue = batches[partition] = []
            elif not self._one_by_one and queue[-1].append(at_ms, key, value, headers):
                continue
            batch = _Batch(record, self._largest_batch_bytes, self._codec)
            batch.append(at_ms, key, value, headers)
            queue.append(batch)
        return batches, refused

    def _has_arrived(self, record: Record, target: _Target) -> bool:
        return (*_name(record), record.trace_id.encode()) in self._arrived.records[target.name]

    def _is_too_large(self, record: Record, target: _Target) -> bool:
        return (target.name, _name(record)) in self._too_large

    def _note_offset(self, partition: TopicPartition, offset: int, count: int) -> None:
        if offset >= 0:  # the answer for a duplicate batch carries no offset
            self._arrived.offsets.setdefault(partition.topic, {})[partition.partition] = offset + count


def _name(record: Record) -> RecordName:
    return record.position, record.number


def _missing(name: str) -> TopicMismatch:
    return TopicMismatch(
        f'the topic {name} does not exist; create it with "hedgelock-ingest topics" or set KAFKA_CREATE_TOPICS=true'
    )


def partition_for(key: bytes, partitions: int) -> int:
    """
    Return the partition of a key, 0 to `partitions` - 1, as Kafka's default partitioner does.

    Source: Apache Kafka, `BuiltInPartitioner.partitionForKey`.
    """
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)
