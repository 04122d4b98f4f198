"""Watch for symbols that Bybit does not serve: refused, accepted without data, or delisted."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from hedgelock_ingest.clock import Clock
from hedgelock_ingest.errors import RestError
from hedgelock_ingest.protocol.channels import category_and_symbol, is_steady
from hedgelock_ingest.protocol.frames import PRIVATE

log = structlog.get_logger(__name__)

TRADING = "Trading"


class Instruments(Protocol):
    """Source of the status of symbols: Bybit's REST."""

    async def symbol_status(self, category: str, symbol: str) -> str | None:
        """Request the status of a symbol, None for one that Bybit does not list."""
        ...


class Feeds(Protocol):
    """What lines bring: the receiver."""

    @property
    def without_line(self) -> Collection[str]:
        """The feeds without a live line."""
        ...

    @property
    def refused(self) -> Mapping[str, str]:
        """The feeds that Bybit refuses, with its reason."""
        ...

    def last_ms(self, feed: str) -> int | None:
        """Return Bybit's time of a feed's last frame, None before the first."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SymbolWatchTiming:
    """
    Intervals in seconds.

    Every `look_s` the feeds are looked at. The status of a symbol is requested once one of its feeds is refused, or one
    of its tickers or books is silent for `silent_s` on a live line; of a symbol without these, once all its feeds are
    silent. It is requested again after `retry_s`, sooner after a failed request.
    """

    look_s: float = 10.0
    silent_s: float = 60.0
    retry_s: float = 600.0
    failed_retry_s: float = 60.0


@dataclass(slots=True)
class _Symbol:
    """
    A symbol with its feeds.

    `silent_since` is by feed on a live line that is watched for silence, with Bybit's time of its last frame;
    `requested_ms` are these times of all feeds when the status was requested, `logged_ms` those of the feeds that were
    logged as silent.
    """

    feeds: list[str]
    silent_since: dict[str, tuple[int | None, float]] = field(default_factory=dict)
    next_request_s: float = 0.0
    status: str | None = TRADING
    requested_ms: dict[str, int | None] = field(default_factory=dict)
    logged_ms: dict[str, int | None] = field(default_factory=dict)

    @property
    def watched(self) -> list[str]:
        """The feeds that send continuously; all, if there are none."""
        return [feed for feed in self.feeds if _is_steady(feed)] or self.feeds


class SymbolWatch:
    """Looks for symbols that Bybit does not serve; `run` is its task. A quiet market is served."""

    def __init__(
        self,
        instruments: Instruments,
        lines: Feeds,
        feeds: Sequence[str],
        *,
        clock: Clock,
        timing: SymbolWatchTiming | None = None,
    ) -> None:
        """
        Prepare.

        Args:
            instruments: Source of the status of symbols.
            lines: The receiver.
            feeds: All feeds, such as `linear:tickers.BTCUSDT`; those of the account are left out.
            clock: Times the looks.
            timing: Intervals.
        """
        self._instruments = instruments
        self._lines = lines
        self._clock = clock
        self._timing = timing or SymbolWatchTiming()
        self._symbols: dict[tuple[str, str], _Symbol] = {}
        for feed in feeds:
            category, symbol = category_and_symbol(feed)
            if category != PRIVATE:
                self._symbols.setdefault((category, symbol), _Symbol([])).feeds.append(feed)

    def problems(self) -> list[str]:
        """Describe the symbols that Bybit does not serve now, one sentence each."""
        refused = self._lines.refused
        found = (self._problem(category, name, symbol, refused) for (category, name), symbol in self._symbols.items())
        return [problem for problem in found if problem is not None]

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self._clock.sleep(self._timing.look_s)
            refused = self._lines.refused
            for (category, name), symbol in self._symbols.items():
                await self._look_at(category, name, symbol, refused)

    async def _look_at(self, category: str, name: str, symbol: _Symbol, refused: Mapping[str, str]) -> None:
        self._note_silence(symbol)
        is_refused = not refused.keys().isdisjoint(symbol.feeds)
        if not (is_refused or self._silent(symbol)):
            symbol.next_request_s = 0.0
            if any(self._lines.last_ms(feed) != ms for feed, ms in symbol.requested_ms.items()):
                symbol.status, symbol.requested_ms = TRADING, {}
            if symbol.logged_ms and all(self._lines.last_ms(feed) != ms for feed, ms in symbol.logged_ms.items()):
                log.info("symbol_served", category=category, symbol=name)
                symbol.logged_ms = {}
            return
        if self._clock.monotonic() >= symbol.next_request_s:
            try:
                requested_ms = {feed: self._lines.last_ms(feed) for feed in symbol.feeds}
                symbol.status = await self._instruments.symbol_status(category, name)
                symbol.requested_ms = requested_ms
                symbol.next_request_s = self._clock.monotonic() + self._timing.retry_s
            except RestError:  # the session logs lasting failures
                symbol.next_request_s = self._clock.monotonic() + self._timing.failed_retry_s
        problem = self._problem(category, name, symbol, refused)
        if problem is not None and not symbol.logged_ms and not is_refused:  # a refusal is logged at once
            symbol.logged_ms = {feed: self._lines.last_ms(feed) for feed in self._silent(symbol)}
            log.warning("symbol_not_served", category=category, symbol=name, reason=problem)

    def _note_silence(self, symbol: _Symbol) -> None:
        now_s, lines = self._clock.monotonic(), self._lines
        for feed in symbol.watched:
            last_ms = lines.last_ms(feed)
            known = symbol.silent_since.get(feed)
            if feed in lines.without_line:
                symbol.silent_since.pop(feed, None)
            elif known is None or known[0] != last_ms:
                symbol.silent_since[feed] = (last_ms, now_s)

    def _silent(self, symbol: _Symbol) -> list[str]:
        before_s = self._clock.monotonic() - self._timing.silent_s
        silent = [feed for feed, (_, since_s) in symbol.silent_since.items() if since_s <= before_s]
        # Trades and liquidations may pause: one that sends shows that the symbol is served.
        return silent if len(silent) == len(symbol.silent_since) or any(map(_is_steady, silent)) else []

    def _problem(self, category: str, name: str, symbol: _Symbol, refused: Mapping[str, str]) -> str | None:
        status = "" if symbol.status == TRADING else f"; {status_text(category, symbol.status)}"
        if refused_feeds := [feed for feed in symbol.feeds if feed in refused]:
            reason = refused[refused_feeds[0]]
            return f"Bybit refuses {_named(refused_feeds)} of {category} {name}: {reason}{status}"
        silent = self._silent(symbol)
        never = [feed for feed in silent if _is_steady(feed) and self._lines.last_ms(feed) is None]
        if silent and status:
            return f"Bybit sends nothing on {_named(silent)} of {category} {name}{status}"
        if never:
            return f"Bybit has accepted {_named(never)} of {category} {name}, and has sent nothing"
        return None


def status_text(category: str, status: str | None) -> str:
    """Describe a symbol that is not trading, with the action."""
    setting = f"BYBIT_{category.upper()}_SYMBOLS"
    if status is None:
        return f"it does not list the symbol: correct {setting}"
    action = "wait" if status == "PreLaunch" else "remove it"
    return f"the symbol's status is {status}: {action}, or correct {setting}"


def _is_steady(feed: str) -> bool:
    return is_steady(feed.partition(":")[2])


def _named(feeds: Collection[str]) -> str:
    return ", ".join(feed.partition(":")[2].rpartition(".")[0] for feed in feeds)
