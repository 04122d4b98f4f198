"""Backfill: ask REST for what happened in one hour, and publish what Kafka does not hold, once."""

import asyncio
import itertools
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import msgspec
import structlog

from hedgelock_ingest.backfill_bounds import alone, pending
from hedgelock_ingest.bybit.key_gate import KeyGate, KeyState
from hedgelock_ingest.bybit.rest_client import OVERLAP_MS, RestClient
from hedgelock_ingest.errors import FrameError, KeyRefused, OutOfReach, RecordRefused, RestUnavailable
from hedgelock_ingest.kafka.publisher import Publisher
from hedgelock_ingest.kafka.span import read_span
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.pipeline.receiver import new_trace
from hedgelock_ingest.protocol.frames import REST, Frame
from hedgelock_ingest.protocol.rest_wire import Purpose, RestAnswer
from hedgelock_ingest.settings import Settings
from hedgelock_ingest.translate.backfilling import TOPIC_BY_PART, Event, events_in, identity_in, records_of
from hedgelock_ingest.translate.record import Record

log = structlog.get_logger(__name__)

EXECUTIONS = "private:execution"
HOUR = timedelta(hours=1)
KEPT = timedelta(days=730)
"""How long Bybit keeps executions. Source: Bybit V5, Trade, Get Trade History."""

_LAG_MS = 30_000
"""Rows of REST may appear later than what they tell of; so an hour that has just ended is asked for this much later."""
_CLOCKS_MS = 600_000
"""How far Kafka's times of records, which are our clock's, may lie before Bybit's of what they tell."""
_GROUP = 500

type _Names = set[tuple[bytes, str]]
"""(key, identity): what a topic holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedBackfill:
    """
    What became of one feed, in rows.

    `given` by REST, `found` of these in the hour, `known` in Kafka already, `published` now. `left` are not in Kafka
    either, but the stream itself will bring them: it holds them in its journal, or will ask for them. `reaches_ms` is
    Bybit's time from which on REST tells everything; None where it told nothing at all.
    """

    feed: str
    topic: Topic
    given: int = 0
    found: int = 0
    known: int = 0
    published: int = 0
    left: int = 0
    reaches_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Backfill:
    """What became of one hour; `notes` say what was not asked for, and why."""

    begin: datetime
    feeds: list[FeedBackfill]
    notes: list[str]

    @property
    def shortfalls(self) -> list[str]:
        """Say in sentences what keeps the hour from being known to be whole; empty when it is."""
        return [*self.notes, *(text for feed in self.feeds for text in _shortfalls(feed, _ms(self.begin)))]

    def published(self, topic: Topic) -> int:
        """Count the records published to a topic."""
        return sum(feed.published for feed in self.feeds if feed.topic is topic)


@dataclass(slots=True)
class _Asked:
    answer: RestAnswer
    feed: str
    reaches_ms: int | None
    given: int
    events: list[Event]
    missing: list[Event] = field(default_factory=list)
    left: int = 0


async def backfill_hour(settings: Settings, begin: datetime) -> Backfill:
    """
    Complete one hour of trades and executions from REST, as far as REST reaches.

    Safe to repeat, also after a kill: what is published is what Kafka does not hold, read back each time, and only one
    backfill at a time works beside these journals. What the stream will bring by itself is left to it.

    Args:
        settings: Whose feeds, journals, key and Kafka.
        begin: The hour's first moment, in UTC.

    Raises:
        OutOfReach: Nothing that REST tells belongs to that hour, or the hour is not over.
        KeyRefused: There is a key, and it is not taken.
        RestError: Bybit did not answer; `transient` says whether a later attempt may succeed.
        KafkaError: Kafka cannot be read, or did not take a record.
        JournalError: A journal cannot be read.
    """
    async with alone(settings.journal_directory):
        async with RestClient(settings) as rest:
            await _await_end(rest, begin + HOUR)
            asked, notes = await _ask(settings, rest, begin)
        _refuse_out_of_reach(begin, asked, notes)
        await _publish_missing(settings, asked)
        return Backfill(begin, [_result(each) for each in asked], notes)


async def _ask(settings: Settings, rest: RestClient, begin: datetime) -> tuple[list[_Asked], list[str]]:
    account_id = settings.bybit_account_id
    may_ask_account, notes = await _account(settings, rest, begin)
    asked = [await _trades(rest, category, symbol, begin, account_id) for category, symbol in _symbols(settings)]
    if may_ask_account:
        asked.append(await _executions(rest, begin, account_id))
    return asked, notes


def _symbols(settings: Settings) -> list[tuple[str, str]]:
    channels = [each for name in settings.stream_shards for each in settings.shard(name).public_channels()]
    found = [(category, channel.rpartition(".")) for category, channel in channels]
    return list(dict.fromkeys((category, symbol) for category, (feed, _, symbol) in found if feed == "publicTrade"))


async def _await_end(rest: RestClient, end: datetime) -> None:
    await rest.server_time()
    wait_ms = _ms(end) + _LAG_MS - rest.now_ms()
    if wait_ms > _LAG_MS:
        raise OutOfReach(f"the hour ends at {end:%Y-%m-%d %H:%M} UTC by Bybit's clock; choose one that is over")
    if wait_ms > 0:
        log.info("backfill_waits", seconds=round(wait_ms / 1000, 1))
        await asyncio.sleep(wait_ms / 1000)


async def _account(settings: Settings, rest: RestClient, begin: datetime) -> tuple[bool, list[str]]:
    if not any(settings.shard(name).carries_private_feeds for name in settings.stream_shards):
        return False, []
    if not rest.has_key:
        return False, ["executions were not asked for: there is no key (BYBIT_API_KEY and BYBIT_API_SECRET)"]
    if _ms(begin) < rest.now_ms() - KEPT // timedelta(milliseconds=1):
        return False, ["executions were not asked for: Bybit keeps them for two years"]
    gate = KeyGate(rest, may_trade=settings.bybit_allow_trading_key, on_change=lambda is_accepted: None)
    status = await gate.check()
    if status.state is KeyState.REFUSED:
        raise KeyRefused(status.reason or "the API key is refused")
    if status.state is not KeyState.ACCEPTED:
        raise RestUnavailable(status.reason or "Bybit does not say what the API key is")
    return True, []


async def _trades(rest: RestClient, category: str, symbol: str, begin: datetime, account_id: str) -> _Asked:
    answer = await rest.recent_trades(category, symbol)
    events = _events(answer, account_id)
    # Several trades share a millisecond, so of the oldest one some may be missing.
    reaches_ms = events[0].at_ms + 1 if events else None
    return _Asked(answer, answer.feed, reaches_ms, len(events), _within(events, begin))


async def _executions(rest: RestClient, begin: datetime, account_id: str) -> _Asked:
    begin_ms = _ms(begin)
    answer = await rest.executions(Purpose.HEAL, since_ms=begin_ms, until_ms=_ms(begin + HOUR))
    events = _events(answer, account_id)
    return _Asked(answer, EXECUTIONS, begin_ms, len(events), _within(events, begin))


def _events(answer: RestAnswer, account_id: str) -> list[Event]:
    try:
        return events_in(answer, account_id)
    except FrameError as error:
        raise RestUnavailable(f"Bybit's answer about {answer.part} cannot be understood: {error}") from error


def _within(events: Iterable[Event], begin: datetime) -> list[Event]:
    begin_ms, end_ms = _ms(begin), _ms(begin + HOUR)
    return [event for event in events if begin_ms <= event.at_ms < end_ms]


def _refuse_out_of_reach(begin: datetime, asked: Sequence[_Asked], notes: Sequence[str]) -> None:
    """
    Refuse an hour of which REST tells nothing.

    Raises:
        OutOfReach: With all reasons.
    """
    end_ms = _ms(begin + HOUR)
    if any(each.reaches_ms is not None and each.reaches_ms < end_ms for each in asked):
        return
    reasons = [*notes, *(text for each in asked for text in _shortfalls(_result(each), _ms(begin)))]
    raise OutOfReach(f"Bybit tells nothing of that hour: {'; '.join(reasons) or 'no feed is configured'}")


async def _publish_missing(settings: Settings, asked: Sequence[_Asked]) -> None:
    # Before Kafka is read: what is not pending any more then stands there.
    coming = await asyncio.to_thread(pending, settings, overlap_ms=OVERLAP_MS)
    publisher = Publisher(settings, uuid.uuid4().hex)
    try:
        # Bytes of a backfill that was killed may still lie in a broker's socket: settle, then read.
        await publisher.open(None, settle=True)
        known = await _read_back(settings, asked)
        for each in asked:
            missing = [event for event in each.events if (event.key, event.identity) not in known]
            each.missing = [event for event in missing if not coming[each.feed].holds(event.at_ms)]
            each.left = len(missing) - len(each.missing)
        for group in itertools.batched(_records(settings, asked), _GROUP):
            refused = await publisher.publish(group)
            if refused:
                raise RecordRefused(refused[0].reason)
    finally:
        await publisher.close()


async def _read_back(settings: Settings, asked: Sequence[_Asked]) -> _Names:
    """Read which of the events stand in Kafka, wherever: an earlier backfill may have come much later."""
    events = [event for each in asked for event in each.events]
    if not events:
        return set()
    topics = {TOPIC_BY_PART[each.answer.part] for each in asked if each.events}
    keys = {event.key for event in events}
    known: _Names = set()
    async for group in read_span(settings, topics, from_ms=min(event.at_ms for event in events) - _CLOCKS_MS):
        for record in group:
            if record.key in keys and record.value is not None and (name := identity_in(record.value)) is not None:
                known.add((record.key, name))
    return known


def _records(settings: Settings, asked: Sequence[_Asked]) -> Iterable[Record]:
    for position, each in enumerate(asked, 1):
        frame = Frame(f"{REST}-{each.answer.part}", time.time_ns(), new_trace(), msgspec.json.encode(each.answer))
        yield from records_of(
            each.missing,
            position,
            frame,
            account_id=settings.bybit_account_id,
            answered_ms=each.answer.time_ms,
        )


def _result(each: _Asked) -> FeedBackfill:
    return FeedBackfill(
        feed=each.feed,
        topic=TOPIC_BY_PART[each.answer.part],
        given=each.given,
        found=len(each.events),
        known=len(each.events) - len(each.missing) - each.left,
        published=len(each.missing),
        left=each.left,
        reaches_ms=each.reaches_ms,
    )


def _shortfalls(feed: FeedBackfill, begin_ms: int) -> Iterable[str]:
    if feed.reaches_ms is None:
        yield f"{feed.feed}: Bybit told of no trade at all"
    elif feed.reaches_ms > begin_ms:
        reach = datetime.fromtimestamp(feed.reaches_ms / 1000, UTC)
        yield f"{feed.feed}: Bybit tells of trades only from {reach:%Y-%m-%d %H:%M:%S} UTC on"
    if feed.left:
        yield f"{feed.feed}: {feed.left} rows are left to the stream, which brings them when it is up"


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)
