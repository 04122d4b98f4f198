"""Publish records: idempotent, acknowledged by all replicas, in order, and once even over a restart."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

import structlog
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError as AiokafkaError
from aiokafka.errors import MessageSizeTooLargeError

from hedgelock_ingest.errors import KafkaUnavailable, ProducerSpent, TopicMismatch
from hedgelock_ingest.kafka.connecting import client_options
from hedgelock_ingest.kafka.delivery import Delivery
from hedgelock_ingest.kafka.headers import HeaderEncoder, RecordName
from hedgelock_ingest.kafka.partitioning import partition_for
from hedgelock_ingest.kafka.record_batch import Codec, RecordBatch
from hedgelock_ingest.kafka.resume import Arrived, Offsets, read_arrived
from hedgelock_ingest.kafka.topics import TopicReport, ensure_topics
from hedgelock_ingest.kafka.varint import with_length
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.settings import Settings
from hedgelock_ingest.translate.record import Record

log = structlog.get_logger(__name__)

PATIENCE_S = 60.0
"""How long records may stay unacknowledged before the producer is given up; until then they are sent again."""
OPEN_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 2.0
_REQUEST_TIMEOUT_MS = int(2 * PATIENCE_S * 1000)
_BATCH_BYTES = 256 * 1024
_OVERHEAD_BYTES = 1_024  # of a batch and of the headers of a record, generously
_LARGEST_DEAD_LETTER = 700_000 * 4 // 3 + 4_096


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that Kafka will never take, and why."""

    record: Record
    reason: str


class _Batch(RecordBatch):
    """A batch that can tell its first record."""

    __slots__ = ("first",)

    def __init__(self, first: Record, limit: int, codec: Codec) -> None:
        super().__init__(limit, codec)
        self.first = first


@dataclass(frozen=True, eq=False, slots=True)
class _Lane:
    """A partition; told apart by identity, which is quicker to look up than names."""

    partition: TopicPartition


@dataclass(frozen=True, slots=True)
class _Target:
    name: str
    largest_bytes: int
    lanes: Sequence[_Lane]
    routes: dict[bytes, tuple[_Lane, bytes]] = field(default_factory=dict)

    def route(self, key: bytes) -> tuple[_Lane, bytes]:
        """Give the partition of a key, and the key as it stands in records."""
        lane = self.lanes[partition_for(key, len(self.lanes))]
        found = self.routes[key] = (lane, with_length(key))
        return found


class Publisher:
    """
    One producer after the other: `open` makes a new one and tells what has arrived, `publish` sends, `close` ends it.

    After any error of `publish` the producer is spent: `open` again, and go on from the journal.
    """

    def __init__(self, settings: Settings, journal_id: str) -> None:
        """Prepare; nothing is connected."""
        self._settings = settings
        self._journal_id = journal_id.encode()
        self._headers = HeaderEncoder(self._journal_id)
        self._codec = Codec[settings.kafka_compression.upper()]
        self._producer: AIOKafkaProducer | None = None
        self._delivery: Delivery | None = None
        self._targets: dict[Topic, _Target] = {}
        self._arrived = Arrived()
        self._known: Offsets | None = None
        self._largest_batch_bytes = _BATCH_BYTES
        self._one_by_one = False
        self._too_large: set[tuple[Topic, RecordName]] = set()
        self.topics: list[TopicReport] = []

    def offsets_at(self, position: int) -> Offsets:
        """
        Give offsets before all records made of frames after `position`, whose records are all acknowledged.

        As long as records that had arrived lie after it, these are the offsets that were known when `open` was called.
        """
        if self._known is not None and position < self._arrived.last_position:
            return self._known
        return {topic: dict(by_partition) for topic, by_partition in self._arrived.offsets.items()}

    async def open(self, known: Offsets | None, *, settle: bool) -> None:
        """
        Connect, look at the topics, and read back what of this journal has arrived after the `known` offsets.

        Raises:
            KafkaUnavailable: No answer, or not in time.
            TopicMismatch: A topic is missing and may not be created.
        """
        await self.close()
        self._known = known
        self.topics = await ensure_topics(self._settings)
        self._targets = {report.topic: _target(report) for report in self.topics}
        names = {target.name: len(target.lanes) for target in self._targets.values()}
        self._arrived = await read_arrived(self._settings, names, self._journal_id, known, settle=settle)
        self._largest_batch_bytes = min(_BATCH_BYTES, *(target.largest_bytes for target in self._targets.values()))
        producer = AIOKafkaProducer(
            **client_options(self._settings),
            enable_idempotence=True,
            acks="all",
            request_timeout_ms=_REQUEST_TIMEOUT_MS,
            retry_backoff_ms=300,
        )
        self._producer = producer
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await producer.start()
                for name in names:  # the first send to a topic would wait for this
                    await producer.partitions_for(name)
        except TimeoutError as error:
            raise KafkaUnavailable(f"the producer could not connect within {OPEN_TIMEOUT_S:g} s") from error
        except (AiokafkaError, OSError) as error:
            raise KafkaUnavailable(f"{type(error).__name__} while the producer connected") from error
        self._delivery = Delivery(producer, ask_ms=_REQUEST_TIMEOUT_MS)

    async def publish(self, records: Sequence[Record]) -> list[Refused]:
        """
        Send records and wait until all are acknowledged; skip those that had arrived before.

        Returns:
            Those that Kafka will never take.

        Raises:
            KafkaUnavailable: Not acknowledged within `PATIENCE_S`.
            ProducerSpent: Kafka refused a batch, so this producer cannot keep order any more.
        """
        if self._producer is None or self._delivery is None:
            raise KafkaUnavailable("the producer is not open")
        batches, refused = self._batches(records)
        try:
            async with asyncio.timeout(PATIENCE_S):
                for round_of_batches in zip_longest(*batches.values()):
                    await self._publish_round(self._delivery, batches, round_of_batches)
        except TimeoutError as error:
            raise KafkaUnavailable(f"records not acknowledged within {PATIENCE_S:g} s") from error
        except (AiokafkaError, OSError) as error:
            raise ProducerSpent(f"{type(error).__name__} from Kafka") from error
        return refused

    async def _publish_round(
        self, delivery: Delivery, lanes: Iterable[_Lane], batches: Sequence[_Batch | None]
    ) -> None:
        """
        Send one batch a partition, and wait for all of them before another one may follow.

        A broker that knows nothing of a producer takes any sequence number from it, so behind a first batch that was
        refused the next one would pass, and what was refused would come after it.

        Source: Apache Kafka, `ProducerAppendInfo.checkSequence`.
        """
        sent = {lane.partition: batch for lane, batch in zip(lanes, batches, strict=True) if batch is not None}
        answers = await delivery.deliver(sent)
        failure: AiokafkaError | None = None
        for partition, answer in answers.items():
            batch = sent[partition]
            if isinstance(answer, int):
                self._note_offset(partition, answer, batch.count)
                continue
            failure = failure or answer
            if isinstance(answer, MessageSizeTooLargeError):
                if batch.count == 1:
                    self._too_large.add((batch.first.topic, _name(batch.first)))
                self._one_by_one = True
        if failure is not None:
            raise ProducerSpent(f"{type(failure).__name__} from Kafka") from failure

    async def close(self) -> None:
        """End the producer, if there is one, in bounded time whatever state it is in."""
        producer, self._producer, self._delivery = self._producer, None, None
        if producer is None:
            return
        transports = [each._writer.transport for each in producer.client._conns.values() if each._writer is not None]
        try:
            # aiokafka's stop() waits until what is written has left and TLS has said goodbye: forever, if nobody reads.
            await asyncio.wait_for(producer.stop(), STOP_TIMEOUT_S)
        except (TimeoutError, AiokafkaError, OSError) as error:
            log.warning("producer_abandoned", cause=type(error).__name__)
            await _abandon(producer, transports)

    def _batches(self, records: Sequence[Record]) -> tuple[dict[_Lane, list[_Batch]], list[Refused]]:
        """Put records into batches, those of one partition in their order; this is the hot path."""
        batches: dict[_Lane, list[_Batch]] = {}
        refused: list[Refused] = []
        targets, encode_headers, arrived_through = self._targets, self._headers.encode, self._arrived.last_position
        now_ms = time.time_ns() // 1_000_000
        for record in records:
            value = record.value
            target = targets[record.topic]
            if record.position <= arrived_through and self._has_arrived(record, target):
                continue
            if len(value) > target.largest_bytes or (self._too_large and self._is_too_large(record)):
                refused.append(Refused(record, f"{len(value)} bytes, more than the topic {target.name} takes"))
                continue
            headers = encode_headers(record)
            # Kafka refuses a time of more than an hour ahead: a clock that was wrong once would halt it all for good.
            at_ms = record.received_ns // 1_000_000
            if at_ms > now_ms:
                at_ms = now_ms
            lane, key = target.routes.get(record.key) or target.route(record.key)
            queue = batches.get(lane)
            if queue is None:
                queue = batches[lane] = []
            elif not self._one_by_one and queue[-1].append(at_ms, key, value, headers):
                continue
            batch = _Batch(record, self._largest_batch_bytes, self._codec)
            batch.append(at_ms, key, value, headers)
            queue.append(batch)
        return batches, refused

    def _has_arrived(self, record: Record, target: _Target) -> bool:
        return (*_name(record), record.trace_id.encode()) in self._arrived.records[target.name]

    def _is_too_large(self, record: Record) -> bool:
        return (record.topic, _name(record)) in self._too_large

    def _note_offset(self, partition: TopicPartition, offset: int, count: int) -> None:
        if offset >= 0:  # a batch that the broker knew already comes back without one
            self._arrived.offsets.setdefault(partition.topic, {})[partition.partition] = offset + count


def _name(record: Record) -> RecordName:
    return record.position, record.number


def _target(report: TopicReport) -> _Target:
    if not report.exists:
        raise TopicMismatch(
            f'the topic {report.name} does not exist; create it with "hedgelock-ingest topics" '
            "or set KAFKA_CREATE_TOPICS=true"
        )
    largest = report.max_message_bytes - _OVERHEAD_BYTES
    if report.topic is Topic.INGEST_DEAD_LETTERS:
        largest = min(largest, _LARGEST_DEAD_LETTER)
    lanes = [_Lane(TopicPartition(report.name, number)) for number in range(report.partitions)]
    return _Target(report.name, largest, lanes)


async def _abandon(producer: AIOKafkaProducer, transports: Iterable[asyncio.Transport]) -> None:
    """Cut the connections of a producer whose own `stop` hangs, and end its tasks."""
    for transport in transports:
        transport.abort()
    task = producer._sender.sender_task
    if task is not None and not task.done():
        task.cancel()
    # It may wait for what `stop` has cancelled, and end cancelled itself, which must not end us.
    closing = asyncio.ensure_future(producer.client.close())
    await asyncio.wait({closing}, timeout=STOP_TIMEOUT_S)
    closing.cancel()
