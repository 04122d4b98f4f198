"""Backfill: ask REST for what happened in one hour, and publish what Kafka does not hold, once."""

import asyncio
import itertools
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from hedgelock_ingest.backfill.bounds import alone, pending
from hedgelock_ingest.backfill.questions import HOUR_MS, Told, ask
from hedgelock_ingest.bybit.rest_client import OVERLAP_MS
from hedgelock_ingest.errors import OutOfReach, RecordRefused
from hedgelock_ingest.kafka.assembly import kafka_publisher
from hedgelock_ingest.kafka.publisher import Publisher
from hedgelock_ingest.kafka.span import read_span
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.pipeline.receiver import new_trace
from hedgelock_ingest.protocol.frames import REST, Frame
from hedgelock_ingest.settings import Settings
from hedgelock_ingest.translate.backfill import Event, Name, identity_in, records_of
from hedgelock_ingest.translate.backlog import Pending
from hedgelock_ingest.translate.record import Record

_CLOCKS_MS = 600_000
"""How far the times of Kafka's records, which are our clock's, may lie before Bybit's of what they tell."""
_GROUP = 500


@dataclass(frozen=True, slots=True)
class FeedBackfill:
    """
    What became of one feed, in rows of the hour: `known` in Kafka before, `published` now, `left` to the stream.

    What is left is not in Kafka, but the stream itself will bring it: it holds it in its journal, or will ask for it.
    """

    told: Told
    known: int
    published: int
    left: int

    def shortfalls(self, begin_ms: int) -> Iterator[str]:
        """Say in sentences what keeps an hour of this feed from being known to be whole."""
        feed, reaches_ms = self.told.feed, self.told.reaches_ms
        if reaches_ms is None:
            yield f"{feed}: Bybit told of none at all"
        elif reaches_ms > begin_ms:
            reach = datetime.fromtimestamp(reaches_ms / 1000, UTC)
            yield f"{feed}: Bybit tells of them only from {reach:%Y-%m-%d %H:%M:%S} UTC on"
        if self.left:
            yield f"{feed}: {self.left} are left to the stream, which brings them when it is up"


@dataclass(frozen=True, slots=True)
class Backfill:
    """What became of one hour; `notes` say what was not asked for, and why."""

    begin: datetime
    feeds: list[FeedBackfill]
    notes: list[str]

    @property
    def shortfalls(self) -> list[str]:
        """Say in sentences what keeps the hour from being known to be whole; empty when it is."""
        begin_ms = int(self.begin.timestamp() * 1000)
        return [*self.notes, *(text for feed in self.feeds for text in feed.shortfalls(begin_ms))]

    def published(self, topic: Topic) -> int:
        """Count the records published to a topic."""
        return sum(feed.published for feed in self.feeds if feed.told.topic is topic)


async def backfill_hour(
    settings: Settings, begin: datetime, *, publisher: Callable[[Settings, str], Publisher] = kafka_publisher
) -> Backfill:
    """
    Complete one hour of trades and executions from REST, as far as REST reaches.

    Safe to repeat, also after a kill: what is published is what Kafka does not hold, read back each time, and only one
    backfill at a time works beside these journals. What the stream will bring by itself is left to it.

    Args:
        settings: Whose feeds, journals, key and Kafka.
        begin: The hour's first moment.
        publisher: Makes the publisher, of the settings and an id of this backfill's records.

    Raises:
        OutOfReach: Nothing that REST tells belongs to that hour, or the hour is not over.
        BackfillRunning: Another one does not end.
        KeyRefused: There is a key, and it is not taken.
        RestError: Bybit did not answer; `transient` says whether a later attempt may succeed.
        KafkaError: Kafka cannot be read, or did not take a record.
        JournalError: A journal cannot be read.
    """
    async with alone(settings.journal_directory):
        told, notes = await ask(settings, begin)
        _refuse_out_of_reach(begin, told, notes)
        # Before Kafka is read: what is not pending any more then stands there.
        coming = await asyncio.to_thread(pending, settings, overlap_ms=OVERLAP_MS)
        feeds = await _publish_missing(settings, publisher(settings, uuid.uuid4().hex), told, coming)
    return Backfill(begin, feeds, notes)


def _refuse_out_of_reach(begin: datetime, told: Sequence[Told], notes: list[str]) -> None:
    """
    Refuse an hour of which REST tells nothing.

    Raises:
        OutOfReach: With all reasons.
    """
    end_ms = int(begin.timestamp() * 1000) + HOUR_MS
    if not any(each.reaches_ms is not None and each.reaches_ms < end_ms for each in told):
        nothing = Backfill(begin, [FeedBackfill(each, 0, 0, 0) for each in told], notes)
        raise OutOfReach(f"Bybit tells nothing of that hour: {'; '.join(nothing.shortfalls)}")


async def _publish_missing(
    settings: Settings, publisher: Publisher, told: Sequence[Told], coming: Mapping[str, Pending]
) -> list[FeedBackfill]:
    feeds: list[FeedBackfill] = []
    records: list[Record] = []
    try:
        # Bytes of a backfill that was killed may still lie in a broker's socket: settle, then read.
        await publisher.open(None, settle=True)
        in_kafka = await _read_back(settings, told)
        for position, each in enumerate(told, 1):
            missing = [event for event in each.events if event.name not in in_kafka]
            chosen = [event for event in missing if not coming[each.feed].holds(event.at_ms)]
            known = len(each.events) - len(missing)
            feeds.append(FeedBackfill(each, known, published=len(chosen), left=len(missing) - len(chosen)))
            records += _records(settings, position, each, chosen)
        for group in itertools.batched(records, _GROUP):
            refused = await publisher.publish(group)
            if refused:
                raise RecordRefused(refused[0].reason)
    finally:
        await publisher.close()
    return feeds


async def _read_back(settings: Settings, told: Sequence[Told]) -> set[Name]:
    """Read which events stand in Kafka: to its end, since an earlier backfill may have come long after the hour."""
    events = [event for each in told for event in each.events]
    if not events:
        return set()
    topics = {each.topic for each in told if each.events}
    keys = {event.name.key for event in events}
    found: set[Name] = set()
    async for group in read_span(settings, topics, from_ms=min(event.at_ms for event in events) - _CLOCKS_MS):
        for record in group:
            if record.key in keys and record.value is not None and (identity := identity_in(record.value)) is not None:
                found.add(Name(record.key, identity))
    return found


def _records(settings: Settings, position: int, told: Told, chosen: Iterable[Event]) -> list[Record]:
    frame = Frame(f"{REST}-{told.answer.part}", time.time_ns(), new_trace(), b"")
    account_id, answered_ms = settings.bybit_account_id, told.answer.time_ms
    return records_of(chosen, position, frame, account_id=account_id, answered_ms=answered_ms)
