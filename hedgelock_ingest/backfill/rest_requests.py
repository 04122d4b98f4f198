"""REST requests of a backfill: the trades and executions of one hour."""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from hedgelock_ingest.bybit.key_gate import require_key
from hedgelock_ingest.bybit.rest_client import RestClient
from hedgelock_ingest.errors import FrameError, OutOfReach, RestRefused, RestUnavailable
from hedgelock_ingest.models.times import unix_ms
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.rest_codes import PARAMETER_WRONG
from hedgelock_ingest.protocol.rest_messages import Part, Purpose, RestAnswer
from hedgelock_ingest.protocol.rest_rows import UndecodableRow
from hedgelock_ingest.settings import Settings
from hedgelock_ingest.translate.backfill import TOPIC_BY_PART, RestEvent, events_in

log = structlog.get_logger(__name__)

EXECUTIONS = "private:execution"
HOUR_MS = 3_600_000
KEPT = timedelta(days=730)
"""How long Bybit keeps executions. Source: Bybit V5, Trade, Get Trade History."""

_LAG_MS = 30_000
"""REST lists rows with a delay, so an hour that has just ended is requested this much later."""


@dataclass(frozen=True, slots=True)
class FeedAnswer:
    """
    REST's answer for one feed: `events` are those of the hour, `row_count` counts all rows.

    `reaches_ms` is Bybit's time from which on the answer is complete, apart from rows that are `undecodable`, whose
    times are unknown; None without a decoded row of trades.
    """

    feed: str
    rest_answer: RestAnswer
    row_count: int
    reaches_ms: int | None
    events: list[RestEvent]
    undecodable: list[UndecodableRow]

    @property
    def topic(self) -> Topic:
        """The topic of the events."""
        return TOPIC_BY_PART[self.rest_answer.part]


async def fetch_hour(settings: Settings, begin: datetime) -> tuple[list[FeedAnswer], list[str]]:
    """
    Request the trades and executions of the hour, and return them with notes on what was not requested.

    Waits until REST has listed all rows of an hour that has just ended.

    Raises:
        OutOfReach: The hour has not ended.
        KeyRefused: There is a key, and it is refused.
        RestError: Bybit did not answer; `transient` states whether a later attempt may succeed.
    """
    begin_ms = unix_ms(begin)
    account_id = settings.bybit_account_id
    async with RestClient(settings) as rest:
        await _await_end(rest, begin_ms + HOUR_MS)
        reason = await _why_not_account(settings, rest, begin_ms)
        answers, notes = [], [] if reason is None else [f"executions were not requested: {reason}"]
        for category, symbol in _symbols(settings):
            try:
                answers.append(await _trades(rest, category, symbol, begin_ms, account_id))
            except RestRefused as error:
                if error.code != PARAMETER_WRONG:  # the code of a symbol that Bybit does not know, or no longer
                    raise
                notes.append(f"trades of {category} {symbol} are not listed: {error}")
        if reason is None:
            answers.append(await _executions(rest, begin_ms, account_id))
    return answers, notes


def _symbols(settings: Settings) -> list[tuple[str, str]]:
    channels = [each for name in settings.stream_shards for each in settings.shard(name).public_channels()]
    found = [(category, channel.rpartition(".")) for category, channel in channels]
    return list(dict.fromkeys((category, symbol) for category, (feed, _, symbol) in found if feed == "publicTrade"))


async def _await_end(rest: RestClient, end_ms: int) -> None:
    left_ms = end_ms - await rest.server_time()
    if left_ms > 0:
        raise OutOfReach(f"by Bybit's clock the hour ends in {left_ms / 1000:.0f} s; choose one that has ended")
    if left_ms + _LAG_MS > 0:
        log.info("backfill_waiting", delay_s=round((left_ms + _LAG_MS) / 1000, 1))
        await asyncio.sleep((left_ms + _LAG_MS) / 1000)


async def _why_not_account(settings: Settings, rest: RestClient, begin_ms: int) -> str | None:
    if not any(settings.shard(name).carries_private_feeds for name in settings.stream_shards):
        return "no shard carries the account"
    if not rest.has_key:
        return "there is no key (BYBIT_API_KEY and BYBIT_API_SECRET)"
    if begin_ms < rest.now_ms() - KEPT // timedelta(milliseconds=1):
        return "Bybit keeps executions for two years only"
    await require_key(rest, may_trade=settings.bybit_allow_trading_key)
    return None


async def _trades(rest: RestClient, category: str, symbol: str, begin_ms: int, account_id: str) -> FeedAnswer:
    answer = await rest.recent_trades(category, symbol)
    events, undecodable = _events(answer, account_id)
    # Several trades may share a millisecond, so the oldest millisecond may be incomplete.
    reaches_ms = events[0].at_ms + 1 if events else None
    row_count = len(events) + len(undecodable)
    return FeedAnswer(answer.feed, answer, row_count, reaches_ms, _within(events, begin_ms), undecodable)


async def _executions(rest: RestClient, begin_ms: int, account_id: str) -> FeedAnswer:
    answer = await rest.executions(Purpose.GAP_FILL, since_ms=begin_ms, until_ms=begin_ms + HOUR_MS)
    events, undecodable = _events(answer, account_id)
    row_count = len(events) + len(undecodable)
    return FeedAnswer(EXECUTIONS, answer, row_count, begin_ms, _within(events, begin_ms), undecodable)


def _events(answer: RestAnswer, account_id: str) -> tuple[list[RestEvent], list[UndecodableRow]]:
    try:
        events, undecodable = events_in(answer, account_id)
    except FrameError as error:
        raise RestUnavailable(f"Bybit's answer about {Part(answer.part)} cannot be decoded: {error}") from error
    if undecodable:
        reason = undecodable[0].reason
        log.error("backfill_rows_undecodable", part=Part(answer.part), rows=len(undecodable), reason=reason)
    return events, undecodable


def _within(events: list[RestEvent], begin_ms: int) -> list[RestEvent]:
    return [event for event in events if begin_ms <= event.at_ms < begin_ms + HOUR_MS]
