"""The publisher of records: idempotent, acknowledged by all replicas, in order, and exactly once over restarts."""

from collections import Counter, deque
from collections.abc import Mapping, Sequence

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError as AiokafkaError

from hedgelock_ingest.clock import Clock, wall_ms
from hedgelock_ingest.errors import IngestError, KafkaError, KafkaUnavailable, ProducerSpent, RecordRefused
from hedgelock_ingest.kafka.addresses import Addresses, Partition
from hedgelock_ingest.kafka.batch_format import Codec
from hedgelock_ingest.kafka.batch_sender import Answer, BatchSender
from hedgelock_ingest.kafka.blocked_topics import BlockedTopics
from hedgelock_ingest.kafka.headers import HeaderEncoder, RecordName
from hedgelock_ingest.kafka.ports import Cluster, KafkaTiming, ProducerSession
from hedgelock_ingest.kafka.record_batches import Batch, BatchRebuilder
from hedgelock_ingest.kafka.refusals import MAY_BE_MISSING, BatchRefusal, RefusalKind
from hedgelock_ingest.kafka.remedies import Remedies, too_large
from hedgelock_ingest.kafka.resume import ArrivedRecords, ResumePoint, read_arrived
from hedgelock_ingest.kafka.routes import addressed, copy_of
from hedgelock_ingest.kafka.topic_reports import TopicReport
from hedgelock_ingest.kafka.topic_survey import TopicSurvey
from hedgelock_ingest.models.topics import Offsets
from hedgelock_ingest.settings import Settings
from hedgelock_ingest.translate.record import Keep, Record, Refusal


async def refuse_none(refused: Sequence[Refusal]) -> None:
    """Raise `RecordRefused`: no record may be refused."""
    raise RecordRefused(refused[0].reason)


class Publisher:
    """
    Publishes records through one producer at a time: `open` creates it, `publish` sends, `close` ends it.

    A record is sent to its topic, and as a copy to the further topics of `KAFKA_ROUTES`.

    `records` counts those that Kafka has taken, by topic.

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
        self._survey = TopicSurvey(settings, cluster)
        self._clock = clock
        self._timing = timing
        self._journal_id = journal_id.encode()
        self._headers = HeaderEncoder(self._journal_id)
        self._codec = Codec[settings.kafka_compression.upper()]
        self._rebuilder = BatchRebuilder(self._headers, self._codec, clock)
        self._remedies = Remedies(self._rebuilder)
        self._session: ProducerSession | None = None
        self._sender: BatchSender | None = None
        self._further_topics = settings.further_topics
        self._addresses = Addresses([], {}, {})
        self._arrived = ArrivedRecords()
        self._known: Offsets | None = None
        self._blocked: BlockedTopics[Batch] = BlockedTopics(timing.blocked_retry_s)
        self.must_catch_up = False
        self.records: Counter[str] = Counter()

    @property
    def topics(self) -> Sequence[TopicReport]:
        """The topics as they were found at the last `open`."""
        return self._survey.reports

    @property
    def blocked(self) -> Mapping[str, str]:
        """Why a topic accepts nothing for now, by topic; `publish` leaves its records out."""
        return self._blocked.reasons

    @property
    def is_behind(self) -> bool:
        """Whether records were left out: positions that were published since are not acknowledged."""
        return self.must_catch_up or bool(self._blocked.partitions)

    def offsets_at(self, position: int) -> Offsets:
        """
        Return offsets before all records of frames after `position`, up to which all records are acknowledged.

        While records that had already arrived lie after `position`, these are the offsets that were passed to `open`.
        """
        if self._known is not None and position < self._arrived.last_position:
            return self._known
        return {topic: dict(by_partition) for topic, by_partition in self._arrived.offsets.items()}

    async def open(self, known: Offsets | None, *, settle: bool, journal_end: int = 0) -> None:
        """
        Connect, check the topics, and read back this journal's records after the `known` offsets.

        Args:
            known: The offsets of the saved state; see `ResumePoint`.
            settle: The last owner ended uncleanly, so its records may still arrive.
            journal_end: The journal's last position when this process opened it.

        Raises:
            KafkaUnavailable: No answer, or not in time; or no topic can be read.
            KafkaDenied: The user lacks an operation on a topic; only the first time, later it is blocked.
            TopicMismatch: A topic is missing and may not be created; likewise.
        """
        await self.close()
        self._known = known
        self._blocked.clear()
        self.must_catch_up = False
        unreadable = await self._survey.take()
        now_s = self._clock.monotonic()
        for name, reason in unreadable.items():
            for number in range(self._survey.partitions[name]):
                self._blocked.block(TopicPartition(name, number), None, reason, now_s)
        self._addresses = Addresses(self.topics, self._survey.partitions, self._further_topics)
        self._remedies.batch_bytes = dict(self._addresses.batch_bytes)
        counts = self._survey.readable
        # Without known offsets, what follows may be translated otherwise than before.
        earlier = self._arrived if known else ArrivedRecords()
        self._arrived = await read_arrived(
            self._cluster,
            counts,
            self._journal_id,
            ResumePoint(known=known, settle=settle, journal_end=journal_end, earlier=earlier),
            compacted={report.name for report in self.topics if report.is_compacted},
            clock=self._clock,
            timing=self._timing,
        )
        self._session = session = self._cluster.producer()
        open_timeout_s = self._timing.open_timeout_s
        try:
            async with self._clock.timeout(open_timeout_s):
                await session.open(counts)
        except TimeoutError as error:
            raise KafkaUnavailable(f"the producer could not connect within {open_timeout_s:g} s") from error
        except (AiokafkaError, OSError) as error:
            raise KafkaUnavailable(f"{type(error).__name__} while the producer connected") from error
        self._sender = BatchSender(session, self._clock, self._timing)

    def catch_up(self, known: Offsets) -> None:
        """Expect the records after the `known` offsets again, of which the blocked topics lack some."""
        self._known = known
        self.must_catch_up = False
        self._arrived.expect_again()

    async def publish(self, records: Sequence[Record], keep: Keep = refuse_none) -> None:
        """
        Send records and wait until all are acknowledged; skip those that had arrived before.

        What a blocked topic would get is left out: see `blocked`. Blocked topics that are due are tried again; if one
        accepts its batch, `must_catch_up` is set, and nothing is sent before `catch_up`.

        Args:
            records: In the order of their frames.
            keep: Called with records, or copies, that Kafka refuses for good, before anything later is sent to their
                partitions: it stores them durably, since later records prove that they are done with.

        Raises:
            RecordRefused: A record is refused for good, and no `keep` is given.
            KafkaUnavailable: Not acknowledged within `delivery_timeout_s` of the timing.
            ProducerSpent: Kafka refused a batch, so this producer can no longer keep order.
        """
        session, sender = self._session, self._sender
        if session is None or sender is None:
            raise KafkaUnavailable("the producer is not open")
        try:
            async with self._clock.timeout(self._timing.delivery_timeout_s):
                if self._blocked.partitions:
                    await self._try_blocked(session, sender)
                if self.must_catch_up:  # these records would overtake those that were left out
                    return
                queues, refused = self._batches(records)
                if refused:
                    await keep(refused)
                while queues:
                    heads = {partition.topic_partition: queue[0] for partition, queue in queues.items()}
                    # All of one round are answered before the next one is sent: a broker without state for a producer
                    # accepts any sequence number, so that records would overtake those of a refused batch before them.
                    # Source: Apache Kafka, `ProducerAppendInfo.checkSequence`.
                    answers = await sender.send(heads, patience_s=self._timing.patience_s, blocked=self._blocked.names)
                    if refused := self._settle(queues, answers):
                        await keep(refused)
        except TimeoutError as error:
            raise KafkaUnavailable(f"records not acknowledged within {self._timing.delivery_timeout_s:g} s") from error
        except IngestError:
            raise
        except Exception as error:  # whatever an answer does to the client: the records are in the journal
            raise ProducerSpent(f"{type(error).__name__} while records were sent: {error}") from error

    def _settle(self, queues: dict[Partition, deque[Batch]], answers: Mapping[TopicPartition, Answer]) -> list[Refusal]:
        """Apply the answers to the first batch of each queue, remove queues that are done; return what is refused."""
        refused: list[Refusal] = []
        spent: BatchRefusal | None = None
        for partition, queue in list(queues.items()):
            topic_partition = partition.topic_partition
            answer, batch = answers[topic_partition], queue[0]
            if isinstance(answer, int):
                self._acknowledge(topic_partition, answer, batch)
                queue.popleft()
            elif answer.kind is RefusalKind.PRODUCER:
                spent = answer
            elif _may_pass(answer, batch):
                self._block(topic_partition, batch, answer)
                queue.clear()
            else:
                next_batches, set_aside = self._remedies.apply(topic_partition, list(queue), answer)
                queues[partition] = queue = deque(next_batches)
                refused += set_aside
            if not queue:
                del queues[partition]
        if spent is not None:
            raise ProducerSpent(f"{spent} from Kafka")
        return refused

    async def _try_blocked(self, session: ProducerSession, sender: BatchSender) -> None:
        """Send once more what the blocked topics that are due refused."""
        due = self._blocked.due(self._clock.monotonic())
        if not due:
            return
        if self._blocked.need_survey(due):
            await self._look_for(due)
        session.renew_leaders()
        await session.leaders_renewed()
        batches = {
            partition: self._rebuilder.retimed(batch) if batch.is_retimed else batch
            for partition, batch in self._blocked.batches_of(due).items()
        }
        answers = await sender.send(batches, patience_s=0.0) if batches else {}
        for partition, answer in answers.items():
            batch = batches[partition]
            if isinstance(answer, int):
                self._acknowledge(partition, answer, batch)
            elif answer.kind is RefusalKind.PRODUCER:
                raise ProducerSpent(f"{answer} from Kafka")
            elif _may_pass(answer, batch):
                self._block(partition, batch, answer)
                continue
            # What is refused for another reason now is refused again while catching up.
            self._blocked.remove(partition)
            self.must_catch_up = True

    async def _look_for(self, topics: Sequence[str]) -> None:
        """Create missing topics, if that is allowed; raises `ProducerSpent` if one has to be read back first."""
        try:
            usable = await self._survey.usable_now(topics)
        except KafkaError:  # their batches are sent nevertheless, and the answers say why
            return
        for report in usable:
            has_changed = report.partitions != self._survey.partitions[report.name]
            if has_changed or not self._blocked.batches_of([report.name]):
                raise ProducerSpent(f"the topic {report.name} can be used again, with {report.partitions} partitions")

    def _block(self, partition: TopicPartition, batch: Batch, answer: BatchRefusal) -> None:
        now_s = self._clock.monotonic()
        self._blocked.block(partition, batch, answer.text, now_s, may_be_missing=answer.code in MAY_BE_MISSING)

    def _acknowledge(self, partition: TopicPartition, offset: int, batch: Batch) -> None:
        self._remedies.accepted(partition)
        if (topic := self._addresses.topic_of.get(partition.topic)) is not None:
            self.records[topic] += batch.count
        self._arrived.through[partition] = _name(batch.records[-1])
        if offset >= 0:  # the answer for a duplicate batch carries no offset
            self._arrived.offsets.setdefault(partition.topic, {})[partition.partition] = offset + batch.count

    def note_arrived(self, record: Record, topic: str) -> None:
        """Count a record, or its copy, as arrived in a topic by Kafka's name: it is there under another name."""
        home = self._addresses.home[record.topic]
        noted = record if topic == home.name else copy_of(record)
        self._arrived.names[topic].add((*_name(noted), noted.trace_id.encode()))
        self._arrived.last_position = max(self._arrived.last_position, noted.position)

    async def close(self) -> None:
        """Close the producer, if there is one, in bounded time whatever state it is in."""
        session, self._session, self._sender = self._session, None, None
        if session is not None:
            await session.close()

    def _batches(self, records: Sequence[Record]) -> tuple[dict[Partition, deque[Batch]], list[Refusal]]:
        """Group records into batches, in order within a partition, but those that are too large; the hot path."""
        refused: list[Refusal] = []
        batches: dict[Partition, deque[Batch]] = {}
        encode_headers, arrived_through = self._headers.encode, self._arrived.last_position
        blocked = self._blocked.partitions
        now_ms = wall_ms(self._clock)
        for record, target in addressed(records, self._addresses.home, self._addresses.further):
            value = record.value
            partition, key = target.routes.get(record.key) or target.route(record.key)
            if blocked and partition.topic_partition in blocked:
                continue
            if record.position <= arrived_through and self._has_arrived(record, partition):
                continue
            if len(value) > target.largest_bytes:
                refused.append(Refusal(record, too_large(record, target.name)))
                continue
            headers = encode_headers(record)
            # Kafka refuses a time over an hour ahead: one frame of a wrong clock would block publishing for good.
            at_ms = record.received_ns // 1_000_000
            if at_ms > now_ms:
                at_ms = now_ms
            queue = batches.get(partition)
            if queue is None:
                queue = batches[partition] = deque()
            elif (last := queue[-1]).append(at_ms, key, value, headers):
                last.records.append(record)
                continue
            batch = Batch(self._remedies.batch_bytes[target.name], self._codec)
            batch.append(at_ms, key, value, headers)
            batch.records.append(record)
            queue.append(batch)
        return batches, refused

    def _has_arrived(self, record: Record, partition: Partition) -> bool:
        return self._arrived.has((*_name(record), record.trace_id.encode()), partition.topic_partition)


def _may_pass(answer: BatchRefusal, batch: Batch) -> bool:
    # A batch of the present time is refused for its time only while the broker's clock and ours differ.
    return answer.kind is RefusalKind.LATER or (answer.kind is RefusalKind.TIME and batch.is_retimed)


def _name(record: Record) -> RecordName:
    return record.position, record.number
