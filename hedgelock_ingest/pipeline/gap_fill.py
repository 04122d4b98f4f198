"""Heal: when a feed comes up again, ask REST for what its hole swallowed, and hand the answers to the receiver."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

import msgspec
import structlog

from hedgelock_ingest.clock import Clock
from hedgelock_ingest.errors import FrameError, RestError, RestLimited, RestUnavailable
from hedgelock_ingest.pipeline.ports import Answers, Questions
from hedgelock_ingest.protocol.rest_messages import Part, Purpose, RestAnswer
from hedgelock_ingest.translate.rest_answers import check_answer

log = structlog.get_logger(__name__)

_PART_BY_FEED = {
    "private:wallet": Part.WALLET,
    "private:position": Part.POSITIONS,
    "private:order": Part.ORDERS,
    "private:execution": Part.EXECUTIONS,
}
_FEED_BY_PART = {part: feed for feed, part in _PART_BY_FEED.items()}
_OF_THE_ACCOUNT = (Part.COLLATERAL, Part.LOANS)
"""No stream tells them, so they are asked for whenever the account comes up."""
_TRADES = ":publicTrade."


@dataclass(frozen=True, slots=True, kw_only=True)
class GapFillTiming:
    """
    How long healing waits for what, in seconds.

    REST may lag behind the stream, so trades are asked for twice, `lag_s` apart. The account is asked for until Bybit
    answers; trades only `trade_attempts` times, since soon they cannot be had any more. The channels of the account
    come up one after the other; `gather_s` lets them come before anything is asked.
    """

    gather_s: float = 0.2
    lag_s: float = 1.0
    retry_initial_s: float = 1.0
    retry_max_s: float = 30.0
    refused_retry_s: float = 60.0
    trade_attempts: int = 3


@dataclass(slots=True)
class GapFillStats:
    """What healing counts of itself; `troubles` are the parts of the account that cannot be had, and why."""

    answers: int = 0
    failures: int = 0
    given_up: int = 0
    troubles: dict[str, str] = field(default_factory=dict)


class GapFill:
    """
    Watches the feeds and mends them; `run` is its task.

    An answer counts only if its feed has not gone down since it was asked for: the next time it comes up, it is asked
    for again.
    """

    def __init__(
        self,
        rest: Questions,
        answers: Answers,
        last_seen_ms: Callable[[str], Awaitable[int | None]],
        *,
        feeds_with_gap: Iterable[str],
        clock: Clock,
        timing: GapFillTiming | None = None,
    ) -> None:
        """
        Prepare.

        Args:
            rest: Whom to ask.
            answers: Who takes the answers.
            last_seen_ms: Gives Bybit's time of a feed's last frame, no later one; None if none was ever seen.
            feeds_with_gap: Feeds that begin with a gap: frames of an earlier process are in the journal.
            clock: Waits.
            timing: How long to wait for what.
        """
        self._clock = clock
        self.stats = GapFillStats()
        self._rest = rest
        self._answers = answers
        self._last_seen_ms = last_seen_ms
        self._timing = timing or GapFillTiming()
        self._feeds_with_gap = set(feeds_with_gap)
        self._turns: dict[str, int] = {}
        self._parts: list[Part] = []
        self._feeds: list[str] = []
        self._asked: set[Part] = set()
        self._trades: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is left to ask for, and no answer is waited for."""
        return not (self._parts or self._asked or self._feeds or self._trades)

    def went_up(self, feeds: Sequence[str]) -> None:
        """Mend what can be mended of these feeds."""
        for feed in feeds:
            self._turn(feed)
            if feed in _PART_BY_FEED:
                self._want([_PART_BY_FEED[feed], *_OF_THE_ACCOUNT])
            elif _TRADES in feed and feed in self._feeds_with_gap:
                self._feeds.append(feed)
        self._changed.set()

    def went_down(self, feeds: Sequence[str]) -> None:
        """Wait until these feeds come up again."""
        for feed in feeds:
            self._turn(feed)
            self._feeds_with_gap.add(feed)
            part = _PART_BY_FEED.get(feed)
            if part in self._parts:
                self._parts.remove(part)

    async def run(self) -> None:
        """Mend until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            account = asyncio.Event()
            tasks.create_task(self._fill_account(account))
            while True:
                await self._changed.wait()
                self._changed.clear()
                account.set()
                feeds, self._feeds = self._feeds, []
                for feed in feeds:
                    task = tasks.create_task(self._fill_trades(feed, self._turns[feed]))
                    self._trades.add(task)
                    task.add_done_callback(self._trades.discard)

    def _turn(self, feed: str) -> None:
        self._turns[feed] = self._turns.get(feed, 0) + 1

    def _want(self, parts: Iterable[Part]) -> None:
        self._parts += [part for part in parts if part not in self._parts]

    async def _wait(self, event: asyncio.Event, timeout_s: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with self._clock.timeout(timeout_s):
                await event.wait()
        event.clear()

    # The account

    async def _fill_account(self, wanted: asyncio.Event) -> None:
        delay_s = self._timing.retry_initial_s
        while True:
            await self._wait(wanted, None if not self._parts else delay_s)
            await self._clock.sleep(self._timing.gather_s)
            if not self._parts:
                continue
            errors = [error for part in list(self._parts) if (error := await self._fill_part(part)) is not None]
            if all(error.transient for error in errors):
                delay_s = min(delay_s * 2, self._timing.retry_max_s) if errors else self._timing.retry_initial_s
            else:
                delay_s = self._timing.refused_retry_s

    async def _fill_part(self, part: Part) -> RestError | None:
        if part not in self._parts:
            return None
        self._parts.remove(part)
        self._asked.add(part)
        try:
            return await self._fill(part)
        finally:
            self._asked.remove(part)

    async def _fill(self, part: Part) -> RestError | None:
        turn = self._turns.get(_FEED_BY_PART.get(part, ""))
        try:
            answer = self._understood(await self._ask(part))
        except RestError as error:
            self._note_trouble(part, error)
            if turn == self._turns.get(_FEED_BY_PART.get(part, "")):
                self._want([part])
            return error
        self._note_answer(part)
        if turn == self._turns.get(_FEED_BY_PART.get(part, "")):
            self._answers.answer_received(answer)
        return None

    def _understood(self, answer: RestAnswer) -> RestAnswer:
        """Give an answer back; one that cannot be understood is kept as it is, and counts as none."""
        try:
            check_answer(answer)
        except FrameError as error:
            self._answers.answer_received(answer)
            raise RestUnavailable(f"Bybit's answer about {answer.part} cannot be understood: {error}") from error
        return answer

    async def _ask(self, part: Part) -> RestAnswer:
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
                raise AssertionError("trades are asked for by feed")

    async def _since_ms(self, part: Part) -> int:
        seen_ms = await self._last_seen_ms(_FEED_BY_PART[part])
        return self._rest.now_ms() if seen_ms is None else seen_ms

    def _note_trouble(self, part: Part, error: RestError) -> None:
        self.stats.failures += 1
        if part not in self.stats.troubles:
            log.warning("account_part_missing", part=part, reason=str(error))
        self.stats.troubles[part] = str(error)

    def _note_answer(self, part: Part) -> None:
        self.stats.answers += 1
        if self.stats.troubles.pop(part, None) is not None:
            log.info("account_part_back", part=part)

    # Public trades

    async def _fill_trades(self, feed: str, turn: int) -> None:
        category, _, channel = feed.partition(":")
        symbol = channel.rpartition(".")[2]
        try:
            answer = await self._ask_trades(category, symbol, lambda: turn == self._turns[feed])
        except RestError as error:
            self.stats.failures += 1
            if turn == self._turns[feed]:
                self.stats.given_up += 1
                log.warning("hole_not_healed", feed=feed, reason=str(error))
                self._answers.gap_fill_failed(feed, f"everything: {error}")
            return
        if answer is not None and turn == self._turns[feed]:
            self.stats.answers += 1
            self._answers.answer_received(answer)

    async def _ask_trades(self, category: str, symbol: str, is_current: Callable[[], bool]) -> RestAnswer | None:
        """Ask twice; None when the feed has gone down meanwhile."""
        answer: RestAnswer | None = None
        attempts_left = self._timing.trade_attempts
        while is_current():
            try:
                found = self._understood(await self._rest.recent_trades(category, symbol))
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
    """Join two answers about the trades of a feed; what stands in both is known by its id."""
    results = {}
    for name, result in second.results.items():
        rows = [*_decode_rows(first.results[name]).list, *_decode_rows(result).list]
        results[name] = msgspec.Raw(msgspec.json.encode({"list": rows}))
    return RestAnswer(second.part, second.purpose, second.time_ms, results, second.feed)
