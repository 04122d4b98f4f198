"""Symbols that Bybit does not serve, apart from quiet ones, which it does."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from structlog.testing import capture_logs

from hedgelock_ingest.clock import SystemClock
from hedgelock_ingest.errors import RestUnavailable
from hedgelock_ingest.pipeline.symbol_watch import SymbolWatch, SymbolWatchTiming
from hedgelock_ingest_tests.sandbox.exchange_fixtures import eventually

TICKER, TRADES = "spot:tickers.BTCUSDT", "spot:publicTrade.BTCUSDT"
TIMING = SymbolWatchTiming(look_s=0.001, silent_s=0.02, retry_s=0.05, failed_retry_s=0.01)


class Market:
    """What the lines bring, and what REST reports about the symbol."""

    def __init__(self, *, last_ms: int | None, status: str | None) -> None:
        self.without_line: set[str] = set()
        self.refused: dict[str, str] = {}
        self.times_ms: dict[str, int | None] = {TICKER: last_ms, TRADES: None}
        self.status = status
        self.requests = 0
        self.fails = False

    def last_ms(self, feed: str) -> int | None:
        """Return the time of the last frame."""
        return self.times_ms[feed]

    async def symbol_status(self, category: str, symbol: str) -> str | None:
        """Return the status, or fail."""
        assert (category, symbol) == ("spot", "BTCUSDT")
        self.requests += 1
        if self.fails:
            raise RestUnavailable("no answer")
        return self.status


@asynccontextmanager
async def watching(market: Market, feeds: Sequence[str] = (TICKER, TRADES)) -> AsyncIterator[Callable[[], list[str]]]:
    """Watch a market; yield the function that returns the problems."""
    watch = SymbolWatch(market, market, [*feeds, "private:wallet"], clock=SystemClock(), timing=TIMING)
    task = asyncio.create_task(watch.run())
    try:
        yield watch.problems
    finally:
        task.cancel()


async def test_quiet_market_is_no_problem() -> None:
    """A spot pair may be silent for minutes; REST reports that it is trading."""
    market = Market(last_ms=1, status="Trading")
    async with watching(market) as problems:
        await eventually(lambda: market.requests >= 2)
        assert problems() == []


async def test_trading_symbol_that_has_never_sent_anything_is_a_problem() -> None:
    """A ticker begins with a snapshot; trades may be rare."""
    async with watching(Market(last_ms=None, status="Trading")) as problems:
        await eventually(problems)
        assert problems() == ["Bybit has accepted tickers of spot BTCUSDT, and has sent nothing"]


async def test_silence_without_an_answer_of_rest_is_no_problem_yet() -> None:
    """What Bybit does not report is not claimed."""
    market = Market(last_ms=1, status=None)
    market.fails = True
    async with watching(market) as problems:
        await eventually(lambda: market.requests >= 2)
        assert problems() == []
        market.fails = False
        await eventually(problems)
        assert "it does not list the symbol: correct BYBIT_SPOT_SYMBOLS" in problems()[0]


async def test_symbol_is_logged_once_until_it_is_served_again() -> None:
    """The loss of all lines in between is no news about the symbol."""
    market = Market(last_ms=1, status="Delivering")
    with capture_logs() as logs:
        async with watching(market) as problems:
            await eventually(problems)
            market.without_line = {TICKER}
            await eventually(lambda: problems() == [])
            market.without_line = set()
            await eventually(problems)
            market.times_ms[TICKER], market.status = 2, "Trading"
            await eventually(lambda: len(logs) >= 2)
            assert problems() == []

    assert [log["event"] for log in logs] == ["symbol_not_served", "symbol_served"]


async def test_refused_symbol_has_its_status_beside_the_reason() -> None:
    """The receiver has logged the refusal."""
    market = Market(last_ms=None, status=None)
    market.without_line = {TICKER, TRADES}
    market.refused = dict.fromkeys([TICKER, TRADES], "Invalid symbol")
    with capture_logs() as logs:
        async with watching(market) as problems:
            await eventually(lambda: "list" in problems()[0])
            [problem] = problems()

    assert problem.startswith("Bybit refuses tickers, publicTrade of spot BTCUSDT: Invalid symbol; ")
    assert logs == []


async def test_symbol_without_tickers_and_books_is_found_by_its_status() -> None:
    """Trades may pause for hours, so only REST can report that there will be none."""
    async with watching(Market(last_ms=None, status=None), [TRADES]) as problems:
        await eventually(problems)
        assert problems() == [
            "Bybit sends nothing on publicTrade of spot BTCUSDT; it does not list the symbol: "
            "correct BYBIT_SPOT_SYMBOLS"
        ]


async def test_symbol_without_tickers_and_books_may_be_quiet() -> None:
    """It has never sent a trade, and is trading."""
    market = Market(last_ms=None, status="Trading")
    async with watching(market, [TRADES]) as problems:
        await eventually(lambda: market.requests >= 2)
        assert problems() == []


async def test_status_of_before_is_not_reported_once_data_came() -> None:
    """A listed symbol that is quiet while REST is away would be reported as not yet listed."""
    market = Market(last_ms=1, status="PreLaunch")
    with capture_logs() as logs:
        async with watching(market) as problems:
            await eventually(problems)
            market.fails, market.times_ms[TICKER] = True, 2
            await eventually(lambda: len(logs) >= 2)
            before = market.requests
            await eventually(lambda: market.requests >= before + 2)
            assert problems() == []
