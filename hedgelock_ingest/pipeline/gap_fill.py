"""Gap filling: when a feed has a live line again, request its missing data from REST for the receiver."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

import msgspec
import structlog

from hedgelock_ingest.clock import Clock
from hedgelock_ingest.errors import FrameError, RestError, RestLimited, RestUnavailable
from hedgelock_ingest.pipeline.ports import AnswerReceiver, RestSource
from hedgelock_ingest.protocol.rest_messages import PRIVATE_FEED_BY_PART, Part, Purpose, RestAnswer
from hedgelock_ingest.translate.rest_answers import check_answer

log = structlog.get_logger(__name__)

_PART_BY_PRIVATE_FEED = {feed: part for part, feed in PRIVATE_FEED_BY_PART.items()}
_PARTS_WITHOUT_STREAM = (Part.COLLATERAL, Part.LOANS)
"""No stream carries them, so they are requested whenever a private feed comes up."""
_TRADES_CHANNEL = ":publicTrade."


@dataclass(frozen=True, slots=True, kw_only=True)
class GapFillTiming:
    """
    Delays and attempts of gap filling, in seconds.

    REST may lag behind the stream, so trades are requested twice, `lag_s` apart. The account is requested until Bybit
    answers; trades only `trade_attempts` times, since Bybit soon stops listing them. The channels of the account come
    up one after the other; `gather_s` waits for all of them before the first request.
    """

    gather_s: float = 0.2
    lag_s: float = 1.0
    retry_initial_s: float = 1.0
    retry_max_s: float = 30.0
    refused_retry_s: float = 60.0
    trade_attempts: int = 3


@dataclass(slots=True)
class GapFillStats:
    """Counters of gap filling; `troubles` maps unavailable parts of the account to the reason."""

    answers: int = 0
    failures: int = 0
    given_up: int = 0
    troubles: dict[str, str] = field(default_factory=dict)


class GapFillQueue:
    """
    Requests to be sent: parts of the account, and trades of feeds; the receiver reports which feeds are live.

    The epoch of a feed changes whenever it gains or loses its live line; an answer counts only in the epoch in which it
    was requested.
    """

    def __init__(self, feeds_with_gap: Iterable[str] = ()) -> None:
        """Start with the feeds that have a gap: frames of an earlier process are in the journal."""
        self.changed = asyncio.Event()
        self.parts: list[Part] = []
        self._feeds_with_gap = set(feeds_with_gap)
        self._feeds: list[str] = []
        self._epochs: dict[str, int] = {}

    def went_up(self, feeds: Sequence[str]) -> None:
        """Request the missing data of these feeds, as far as REST has it."""
        for feed in feeds:
            self._begin_epoch(feed)
            if feed in _PART_BY_PRIVATE_FEED:
                self.want([_PART_BY_PRIVATE_FEED[feed], *_PARTS_WITHOUT_STREAM])
            elif _TRADES_CHANNEL in feed and feed in self._feeds_with_gap:
                self._feeds.append(feed)
        self.changed.set()

    def went_down(self, feeds: Sequence[str]) -> None:
        """Cancel the requests of these feeds until they come up again."""
        for feed in feeds:
            self._begin_epoch(feed)
            self._feeds_with_gap.add(feed)
            part = _PART_BY_PRIVATE_FEED.get(feed)
            if part in self.parts:
                self.parts.remove(part)

    def want(self, parts: Iterable[Part]) -> None:
        """Request parts of the account."""
        self.parts += [part for part in parts if part not in self.parts]

    def take_feeds(self) -> list[str]:
        """Remove and return the feeds whose trades are to be requested."""
        feeds, self._feeds = self._feeds, []
        return feeds

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left to request."""
        return not (self.parts or self._feeds)

    def epoch(self, feed: str) -> int:
        """Return the epoch of a feed."""
        return self._epochs.get(feed, 0)

    def _begin_epoch(self, feed: str) -> None:
        self._epochs[feed] = self.epoch(feed) + 1


class GapFill:
    """
    Fills the gaps of feeds; `run` is its task.

    An answer counts only if its feed has not gone down since the request; when the feed comes up again, the data is
    requested again.
    """

    def __init__(
        self,
        rest: RestSource,
        answers: AnswerReceiver,
        last_seen_ms: Callable[[str], Awaitable[int | None]],
        queue: GapFillQueue,
        *,
        clock: Clock,
        timing: GapFillTiming | None = None,
    ) -> None:
        """
        Prepare.

        Args:
            rest: Source of the answers.
            answers: Receives the answers.
            last_seen_ms: Returns Bybit's time of a feed's last frame, or an earlier time; None if there was no frame.
            queue: Requests to be sent.
            clock: Used for waits.
            timing: Delays and attempts.
        """
        self._clock = clock
        self.stats = GapFillStats()
        self._rest = rest
        self._answers = answers
        self._last_seen_ms = last_seen_ms
        self._timing = timing or GapFillTiming()
        self._queue = queue
        self._is_requesting = False
        self._trades: set[asyncio.Task[None]] = set()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is left to request, and no request is under way."""
        return self._queue.is_empty and not (self._is_requesting or self._trades)

    async def run(self) -> None:
        """Fill gaps until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            account = asyncio.Event()
            tasks.create_task(self._fill_account(account))
            while True:
                await self._queue.changed.wait()
                self._queue.changed.clear()
                account.set()
                for feed in self._queue.take_feeds():
                    task = tasks.create_task(self._fill_trades(feed, self._queue.epoch(feed)))
                    self._trades.add(task)
                    task.add_done_callback(self._trades.discard)

    async def _wait(self, event: asyncio.Event, timeout_s: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with self._clock.timeout(timeout_s):
                await event.wait()
        event.clear()

    # The account

    async def _fill_account(self, wanted: asyncio.Event) -> None:
        delay_s = self._timing.retry_initial_s
        while True:
            await self._wait(wanted, None if not self._queue.parts else delay_s)
            await self._clock.sleep(self._timing.gather_s)
            if not self._queue.parts:
                continue
            self._is_requesting = True
            errors = [error for part in list(self._queue.parts) if (error := await self._fill(part)) is not None]
            self._is_requesting = False
            if all(error.transient for error in errors):
                delay_s = min(delay_s * 2, self._timing.retry_max_s) if errors else self._timing.retry_initial_s
            else:
                delay_s = self._timing.refused_retry_s

    async def _fill(self, part: Part) -> RestError | None:
        if part not in self._queue.parts:
            return None
        self._queue.parts.remove(part)
        epoch = self._queue.epoch(PRIVATE_FEED_BY_PART.get(part, ""))
        try:
            answer = self._checked(await self._request(part))
        except RestError as error:
            self._note_trouble(part, error)
            if epoch == self._queue.epoch(PRIVATE_FEED_BY_PART.get(part, "")):
                self._queue.want([part])
            return error
        self._note_answer(part)
        if epoch == self._queue.epoch(PRIVATE_FEED_BY_PART.get(part, "")):
            self._answers.answer_received(answer)
        return None

    def _checked(self, answer: RestAnswer) -> RestAnswer:
        """Return a valid answer; pass an invalid one to the receiver for its dead letter, and raise."""
        try:
            check_answer(answer)
        except FrameError as error:
            self._answers.answer_received(answer)
            raise RestUnavailable(f"Bybit's answer about {answer.part} cannot be decoded: {error}") from error
        return answer

    async def _request(self, part: Part) -> RestAnswer:
        rest = self._rest
        match part:
            case Part.WALLET:
                return await rest.wallet(Purpose.SNAPSHOT)
            case Part.POSITIONS:
                return await rest.positions(Purpose.SNAPSHOT)
            case Part.ORDERS:
                return await rest.orders(Purpose.GAP_FILL, since_ms=await self._since_ms(part))
            case Part.EXECUTIONS:
                return await rest.executions(Purpose.GAP_FILL, since_ms=await self._since_ms(part))
            case Part.COLLATERAL:
                return await rest.collateral(Purpose.SNAPSHOT)
            case Part.LOANS:
                return await rest.loans(Purpose.SNAPSHOT)
            case Part.TRADES:
                raise AssertionError("trades are requested by feed")

    async def _since_ms(self, part: Part) -> int:
        seen_ms = await self._last_seen_ms(PRIVATE_FEED_BY_PART[part])
        return self._rest.now_ms() if seen_ms is None else seen_ms

    def _note_trouble(self, part: Part, error: RestError) -> None:
        self.stats.failures += 1
        if part not in self.stats.troubles:
            log.warning("account_part_missing", part=part, reason=str(error))
        self.stats.troubles[part] = str(error)

    def _note_answer(self, part: Part) -> None:
        self.stats.answers += 1
        if self.stats.troubles.pop(part, None) is not None:
            log.info("account_part_recovered", part=part)

    # Public trades

    async def _fill_trades(self, feed: str, epoch: int) -> None:
        category, _, channel = feed.partition(":")
        symbol = channel.rpartition(".")[2]
        try:
            answer = await self._request_trades(category, symbol, lambda: epoch == self._queue.epoch(feed))
        except RestError as error:
            self.stats.failures += 1
            if epoch == self._queue.epoch(feed):
                self.stats.given_up += 1
                log.warning("gap_not_filled", feed=feed, reason=str(error))
                self._answers.gap_fill_failed(feed, f"everything: {error}")
            return
        if answer is not None and epoch == self._queue.epoch(feed):
            self.stats.answers += 1
            self._answers.answer_received(answer)

    async def _request_trades(self, category: str, symbol: str, is_current: Callable[[], bool]) -> RestAnswer | None:
        """Request the trades twice; None when the feed has gone down meanwhile."""
        answer: RestAnswer | None = None
        attempts_left = self._timing.trade_attempts
        while is_current():
            try:
                found = self._checked(await self._rest.recent_trades(category, symbol))
            except RestError as error:
                attempts_left -= 1
                if answer is not None:
                    return answer
                wait_s = error.wait_s if isinstance(error, RestLimited) else self._timing.retry_initial_s
                if not error.transient or attempts_left <= 0 or wait_s > self._timing.retry_max_s:
                    raise
                await self._clock.sleep(wait_s)
                continue
            if answer is not None:
                return _joined(answer, found)
            answer = found
            await self._clock.sleep(self._timing.lag_s)
        return None


class _Rows(msgspec.Struct):
    list: tuple[msgspec.Raw, ...] = ()


_decode_rows = msgspec.json.Decoder(_Rows).decode


def _joined(first: RestAnswer, second: RestAnswer) -> RestAnswer:
    """Join two answers about the trades of a feed; duplicates are removed later, by trade id."""
    results = {}
    for name, result in second.results.items():
        rows = [*_decode_rows(first.results[name]).list, *_decode_rows(result).list]
        results[name] = msgspec.Raw(msgspec.json.encode({"list": rows}))
    return RestAnswer(second.part, second.purpose, second.time_ms, results, second.feed)
