"""Backfill of one hour: request its trades and executions from REST, and publish those missing in Kafka, once."""

import asyncio
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime

from hedgelock_ingest.backfill.bounds import backfill_lock, pending
from hedgelock_ingest.backfill.rest_requests import HOUR_MS, FeedAnswer, fetch_hour
from hedgelock_ingest.bybit.rest_client import OVERLAP_MS
from hedgelock_ingest.errors import OutOfReach, RestUnavailable
from hedgelock_ingest.kafka.aiokafka_cluster import kafka_publisher
from hedgelock_ingest.kafka.consumer import read_span
from hedgelock_ingest.kafka.publish_all import opened, publish_all
from hedgelock_ingest.kafka.publisher import Publisher
from hedgelock_ingest.models.times import unix_ms, utc_time
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.pipeline.receiver import new_trace
from hedgelock_ingest.protocol.frames import REST, Frame
from hedgelock_ingest.settings import Settings
from hedgelock_ingest.translate.backfill import EventId, RestEvent, identity_in, records_of
from hedgelock_ingest.translate.pending import Pending
from hedgelock_ingest.translate.record import Record

_CLOCK_MARGIN_MS = 600_000
"""How far the times of Kafka's records, from our clock, may lie before Bybit's times of their events."""


@dataclass(frozen=True, slots=True)
class FeedBackfill:
    """
    Result of one feed, in rows of the hour: `known` in Kafka before, `published` now, `left` to the stream.

    Rows that are left are not in Kafka, but the stream will publish them: they are in its journal, or it will request
    them.
    """

    answer: FeedAnswer
    known: int
    published: int
    left: int

    def shortfalls(self, begin_ms: int) -> Iterator[str]:
        """Yield in sentences why the hour of this feed is not known to be complete."""
        feed, reaches_ms, undecodable = self.answer.feed, self.answer.reaches_ms, self.answer.undecodable
        for category, reason in self.answer.rest_answer.silent_about.items():
            yield f"{feed}: Bybit returned nothing about {category}: {reason}"
        if undecodable:
            rows = "1 row" if len(undecodable) == 1 else f"{len(undecodable)} rows"
            yield f"{feed}: {rows} cannot be decoded: {undecodable[0].reason}"
        if reaches_ms is None and not undecodable:
            yield f"{feed}: Bybit returned no rows"
        elif reaches_ms is not None and reaches_ms > begin_ms:
            yield f"{feed}: Bybit returned rows only from {utc_time(reaches_ms):%Y-%m-%d %H:%M:%S} UTC on"
        if self.left:
            yield f"{feed}: {self.left} are left to the stream, which publishes them when it runs"


@dataclass(frozen=True, slots=True)
class Backfill:
    """Result of one hour; `notes` state what was not requested, and why."""

    begin: datetime
    feeds: list[FeedBackfill]
    notes: list[str]

    @property
    def shortfalls(self) -> list[str]:
        """Sentences on why the hour is not known to be complete; empty when it is."""
        begin_ms = unix_ms(self.begin)
        return [*self.notes, *(text for feed in self.feeds for text in feed.shortfalls(begin_ms))]

    def published(self, topic: Topic) -> int:
        """Count the records published to a topic."""
        return sum(feed.published for feed in self.feeds if feed.answer.topic is topic)


async def backfill_hour(
    settings: Settings, begin: datetime, *, publisher: Callable[[Settings, str], Publisher] = kafka_publisher
) -> Backfill:
    """
    Complete one hour of trades and executions from REST, as far as REST reaches.

    Safe to repeat, also after a kill: each run reads Kafka and publishes only missing records, and a lock allows one
    backfill of these journals at a time. Data that the stream will still publish is left to it.

    Args:
        settings: Feeds, journals, key and Kafka.
        begin: Start of the hour.
        publisher: Creates the publisher, from the settings and an id of this backfill's records.

    Raises:
        OutOfReach: REST has no rows of that hour, or the hour has not ended.
        BackfillRunning: Another one does not end in time.
        KeyRefused: There is a key, and it is refused.
        RestError: Bybit did not answer; `transient` states whether a later attempt may succeed.
        KafkaError: Kafka cannot be read, or did not accept a record.
        JournalError: A journal cannot be read.
    """
    async with backfill_lock(settings.journal_directory):
        answers, notes = await fetch_hour(settings, begin)
        _refuse_out_of_reach(begin, answers, notes)
        # Before Kafka is read: data that is not pending any more is then in Kafka.
        pending_by_feed = await asyncio.to_thread(pending, settings, overlap_ms=OVERLAP_MS)
        feeds = await _publish_missing(settings, publisher(settings, uuid.uuid4().hex), answers, pending_by_feed)
    return Backfill(begin, feeds, notes)


def _refuse_out_of_reach(begin: datetime, answers: Sequence[FeedAnswer], notes: list[str]) -> None:
    """
    Refuse an hour of which REST has no data.

    Raises:
        OutOfReach: With all reasons.
        RestUnavailable: All rows of a feed cannot be decoded, so whether REST has data of the hour is unknown.
    """
    end_ms = unix_ms(begin) + HOUR_MS
    if not any(each.reaches_ms is not None and each.reaches_ms < end_ms for each in answers):
        nothing = Backfill(begin, [FeedBackfill(each, 0, 0, 0) for each in answers], notes)
        reasons = "; ".join(nothing.shortfalls)
        if any(each.reaches_ms is None and each.undecodable for each in answers):
            raise RestUnavailable(f"Bybit returned nothing that can be decoded of that hour: {reasons}")
        raise OutOfReach(f"Bybit returned nothing of that hour: {reasons}")


async def _publish_missing(
    settings: Settings, publisher: Publisher, answers: Sequence[FeedAnswer], pending_by_feed: Mapping[str, Pending]
) -> list[FeedBackfill]:
    feeds: list[FeedBackfill] = []
    records: list[Record] = []
    # Records of a killed backfill may still be in a broker's socket buffer: settle, then read.
    async with opened(publisher, None, settle=True):
        in_kafka = await _read_back(settings, answers)
        for position, each in enumerate(answers, 1):
            topics = settings.topic(each.topic), *settings.further_topics.get(each.topic, ())
            pending_of_feed = pending_by_feed[each.feed]
            missing = {event.event_id for event in each.events if event.event_id not in in_kafka[topics[0]]}
            chosen = [
                event
                for event in each.events
                if any(event.event_id not in in_kafka[topic] for topic in topics)
                and not pending_of_feed.holds(event.at_ms)
            ]
            published = sum(event.event_id in missing for event in chosen)
            known = len(each.events) - len(missing)
            feeds.append(FeedBackfill(each, known, published=published, left=len(missing) - published))
            of_feed = _records(settings, position, each, chosen)
            _note_arrived(publisher, of_feed, {topic: in_kafka[topic] for topic in topics})
            records += of_feed
        await publish_all(publisher, records)
    return feeds


def _note_arrived(publisher: Publisher, records: Iterable[Record], in_kafka: Mapping[str, Set[EventId]]) -> None:
    """Let a record be sent only to those topics, its own and the further ones, that do not have its event."""
    for record in records:
        event_id = EventId(record.key, identity_in(record.value) or "")
        for topic, known in in_kafka.items():
            if event_id in known:
                publisher.note_arrived(record, topic)


async def _read_back(settings: Settings, answers: Sequence[FeedAnswer]) -> Mapping[str, Set[EventId]]:
    """
    Read which events are in Kafka, by topic, own or further.

    The topics are read to their ends, since an earlier backfill may have run long after the hour, and may have been
    killed when only one of an event's topics had it.
    """
    events = [event for each in answers for event in each.events]
    found: defaultdict[str, set[EventId]] = defaultdict(set)
    if not events:
        return found
    topics = {each.topic for each in answers if each.events}
    keys = {event.event_id.key for event in events}
    from_ms = min(event.at_ms for event in events) - _CLOCK_MARGIN_MS
    async for group in read_span(settings, topics, from_ms=from_ms, with_further=True):
        for record in group:
            if record.key in keys and record.value is not None and (identity := identity_in(record.value)) is not None:
                found[record.topic].add(EventId(record.key, identity))
    return found


def _records(settings: Settings, position: int, answer: FeedAnswer, chosen: Iterable[RestEvent]) -> list[Record]:
    frame = Frame(f"{REST}-{answer.rest_answer.part}", time.time_ns(), new_trace(), b"")
    account_id, answered_ms = settings.bybit_account_id, answer.rest_answer.time_ms
    return records_of(chosen, position, frame, account_id=account_id, answered_ms=answered_ms)
