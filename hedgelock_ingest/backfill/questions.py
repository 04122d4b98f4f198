"""What a backfill asks Bybit's REST for: the trades and executions of one hour."""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from hedgelock_ingest.bybit.key_gate import require_key
from hedgelock_ingest.bybit.rest_client import RestClient
from hedgelock_ingest.errors import FrameError, OutOfReach, RestUnavailable
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.rest_messages import Part, Purpose, RestAnswer
from hedgelock_ingest.settings import Settings
from hedgelock_ingest.translate.backfill import TOPIC_BY_PART, Event, events_in

log = structlog.get_logger(__name__)

EXECUTIONS = "private:execution"
HOUR_MS = 3_600_000
KEPT = timedelta(days=730)
"""How long Bybit keeps executions. Source: Bybit V5, Trade, Get Trade History."""

_LAG_MS = 30_000
"""Rows of REST may appear later than what they tell of; so an hour that has just ended is asked for this much later."""


@dataclass(frozen=True, slots=True)
class Told:
    """
    What REST told of one feed: `events` are those of the hour, `given` counts all rows.

    `reaches_ms` is Bybit's time from which on it tells everything; None where it told nothing at all.
    """

    feed: str
    answer: RestAnswer
    given: int
    reaches_ms: int | None
    events: list[Event]

    @property
    def topic(self) -> Topic:
        """Where the events belong."""
        return TOPIC_BY_PART[self.answer.part]


async def ask(settings: Settings, begin: datetime) -> tuple[list[Told], list[str]]:
    """
    Ask for the trades and executions of the hour, and give notes on what was not asked for; wait until it is over.

    Raises:
        OutOfReach: The hour is not over.
        KeyRefused: There is a key, and it is not taken.
        RestError: Bybit did not answer; `transient` says whether a later attempt may succeed.
    """
    begin_ms = int(begin.timestamp() * 1000)
    account_id = settings.bybit_account_id
    async with RestClient(settings) as rest:
        await _await_end(rest, begin_ms + HOUR_MS)
        reason = await _why_not_account(settings, rest, begin_ms)
        told = [await _trades(rest, *each, begin_ms, account_id) for each in _symbols(settings)]
        if reason is None:
            told.append(await _executions(rest, begin_ms, account_id))
    return told, [] if reason is None else [f"executions were not asked for: {reason}"]


def _symbols(settings: Settings) -> list[tuple[str, str]]:
    channels = [each for name in settings.stream_shards for each in settings.shard(name).public_channels()]
    found = [(category, channel.rpartition(".")) for category, channel in channels]
    return list(dict.fromkeys((category, symbol) for category, (feed, _, symbol) in found if feed == "publicTrade"))


async def _await_end(rest: RestClient, end_ms: int) -> None:
    left_ms = end_ms - await rest.server_time()
    if left_ms > 0:
        raise OutOfReach(f"by Bybit's clock the hour goes on for {left_ms / 1000:.0f} s; choose one that is over")
    if left_ms + _LAG_MS > 0:
        log.info("backfill_waits", seconds=round((left_ms + _LAG_MS) / 1000, 1))
        await asyncio.sleep((left_ms + _LAG_MS) / 1000)


async def _why_not_account(settings: Settings, rest: RestClient, begin_ms: int) -> str | None:
    if not any(settings.shard(name).carries_private_feeds for name in settings.stream_shards):
        return "no shard carries the account"
    if not rest.has_key:
        return "there is no key (BYBIT_API_KEY and BYBIT_API_SECRET)"
    if begin_ms < rest.now_ms() - KEPT // timedelta(milliseconds=1):
        return "Bybit keeps them for two years"
    await require_key(rest, may_trade=settings.bybit_allow_trading_key)
    return None


async def _trades(rest: RestClient, category: str, symbol: str, begin_ms: int, account_id: str) -> Told:
    answer = await rest.recent_trades(category, symbol)
    events = _events(answer, account_id)
    # Several trades share a millisecond, so of the oldest one some may be missing.
    reaches_ms = events[0].at_ms + 1 if events else None
    return Told(answer.feed, answer, len(events), reaches_ms, _within(events, begin_ms))


async def _executions(rest: RestClient, begin_ms: int, account_id: str) -> Told:
    answer = await rest.executions(Purpose.GAP_FILL, since_ms=begin_ms, until_ms=begin_ms + HOUR_MS)
    events = _events(answer, account_id)
    return Told(EXECUTIONS, answer, len(events), begin_ms, _within(events, begin_ms))


def _events(answer: RestAnswer, account_id: str) -> list[Event]:
    try:
        return events_in(answer, account_id)
    except FrameError as error:
        raise RestUnavailable(f"Bybit's answer about {Part(answer.part)} cannot be understood: {error}") from error


def _within(events: list[Event], begin_ms: int) -> list[Event]:
    return [event for event in events if begin_ms <= event.at_ms < begin_ms + HOUR_MS]
