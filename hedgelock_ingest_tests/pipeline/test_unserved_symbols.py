"""Fifty symbols on two real lines, some of which Bybit does not serve: the others are left alone."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

from structlog.testing import capture_logs

from hedgelock_ingest.bybit.line import Line, LineLimits
from hedgelock_ingest.bybit.rest_client import RestClient
from hedgelock_ingest.bybit.rest_port import RestTiming
from hedgelock_ingest.clock import SystemClock
from hedgelock_ingest.pipeline.receiver import Receiver
from hedgelock_ingest.pipeline.stand_in import StandIn, StandInTiming
from hedgelock_ingest.pipeline.symbol_watch import SymbolWatch, SymbolWatchTiming
from hedgelock_ingest.protocol.line_events import LineKey
from hedgelock_ingest.protocol.rate_limits import ConnectionBudget
from hedgelock_ingest.protocol.rest_messages import RestAnswer
from hedgelock_ingest.protocol.websocket_session import SessionTiming
from hedgelock_ingest.sandbox.exchange import SimulatedExchange
from hedgelock_ingest.settings import Settings
from hedgelock_ingest_tests.bybit.rest import QUICK, settings_for
from hedgelock_ingest_tests.sandbox.exchange_fixtures import eventually, running_exchange

LISTED = [f"S{number:02}USDT" for number in range(49)]
UNKNOWN, EARLY, DELISTED = "NONEUSDT", LISTED[0], LISTED[1]
SERVED = LISTED[2:]
FEEDS = ("tickers", "publicTrade")


class CountingReceiver(Receiver):
    """Counts refusals of subscriptions."""

    refusals = 0

    def channel_rejected(self, line: LineKey, channel: str, reason: str) -> None:
        """Count one."""
        self.refusals += 1
        super().channel_rejected(line, channel, reason)


class CountingClient(RestClient):
    """Counts the requests of tickers by symbol."""

    def __init__(self, settings: Settings, timing: RestTiming) -> None:
        super().__init__(settings, timing)
        self.tickers: Counter[str] = Counter()

    async def ticker(self, category: str, symbol: str) -> RestAnswer:
        """Count one."""
        self.tickers[symbol] += 1
        return await super().ticker(category, symbol)


class Stage:
    """Two lines with all symbols, their receiver, and what REST does for it."""

    def __init__(self, exchange: SimulatedExchange) -> None:
        channels = [f"{feed}.{symbol}" for symbol in [*LISTED, UNKNOWN] for feed in FEEDS]
        feeds = [f"linear:{channel}" for channel in channels]
        clock, budget = SystemClock(), ConnectionBudget()
        self.rest = CountingClient(settings_for(exchange), QUICK)
        self.receiver = CountingReceiver(feeds, lambda: None, clock=clock)
        limits = LineLimits(
            reconnect_initial_delay_s=0.02, timing=SessionTiming(ping_interval_s=0.1, rejected_retry_s=0.1)
        )
        self.lines = [
            Line(
                name,
                channels,
                self.receiver,
                url=f"{exchange.public_ws_url}/linear",
                budget=budget,
                limits=limits,
                clock=clock,
                random=Random(),
            )
            for name in ("linear-a", "linear-b")
        ]
        self.stand_in = StandIn(
            self.rest,
            self.receiver,
            self.receiver.without_line,
            may_request=lambda: True,
            may_request_account=lambda: False,
            clock=clock,
            timing=StandInTiming(ticker_s=0.02),
        )
        timing = SymbolWatchTiming(look_s=0.02, silent_s=0.5, retry_s=0.5)
        self.watch = SymbolWatch(self.rest, self.receiver, feeds, clock=clock, timing=timing)

    def are_served(self) -> bool:
        """Return whether all symbols that Bybit serves have live lines and data."""
        receiver = self.receiver
        feeds = [f"linear:tickers.{symbol}" for symbol in SERVED]
        return receiver.without_line.isdisjoint(feeds) and all(receiver.last_ms(feed) for feed in feeds)

    async def tick(self) -> None:
        """Call the receiver's `tick` periodically, as the stream does."""
        while True:
            await asyncio.sleep(0.02)
            self.receiver.tick()


@asynccontextmanager
async def running(exchange: SimulatedExchange) -> AsyncIterator[Stage]:
    """Run the lines, and the requests beside them."""
    stage = Stage(exchange)
    async with asyncio.TaskGroup() as tasks:
        lines = [tasks.create_task(line.run()) for line in stage.lines]
        beside = [tasks.create_task(one) for one in (stage.stand_in.run(), stage.watch.run(), stage.tick())]
        yield stage
        for line in stage.lines:
            line.stop()
        await asyncio.wait(lines)
        for task in beside:
            task.cancel()
    stage.rest.close()


def named(problems: list[str]) -> list[str]:
    """Return the symbol that each problem is about."""
    return [next(symbol for symbol in [*LISTED, UNKNOWN] if f" {symbol}" in problem) for problem in problems]


async def test_symbols_that_bybit_does_not_serve_leave_the_others_alone() -> None:
    """One is unknown, one not listed yet, one is delisted: each is named once, and all lines stay open."""
    async with running_exchange(linear_symbols=tuple(LISTED), rate=1_500) as exchange:
        exchange.set_status("linear", EARLY, "PreLaunch")
        with capture_logs() as logs:
            async with running(exchange) as stage:
                await eventually(stage.are_served)
                exchange.set_status("linear", DELISTED, "Closed")
                await eventually(lambda: len(stage.watch.problems()) == 3 and stage.receiver.refusals >= 16)

                assert [(line.status.generation, line.status.reconnects) for line in stage.lines] == [(1, 0)] * 2
                assert stage.receiver.without_line == {f"linear:{feed}.{UNKNOWN}" for feed in FEEDS}
                assert stage.rest.tickers[UNKNOWN] == 1
                before = stage.watch.problems()

                exchange.drop_lines("linear")
                await eventually(lambda: f"linear:tickers.{DELISTED}" in stage.receiver.refused and stage.are_served())
                await eventually(lambda: len(stage.watch.problems()) == 3)
                after = stage.watch.problems()

    assert before == [
        f"Bybit sends nothing on tickers of linear {EARLY}; the symbol's status is PreLaunch: wait, or correct "
        "BYBIT_LINEAR_SYMBOLS",
        f"Bybit sends nothing on tickers of linear {DELISTED}; the symbol's status is Closed: remove it, or correct "
        "BYBIT_LINEAR_SYMBOLS",
        f"Bybit refuses tickers, publicTrade of linear {UNKNOWN}: error:handler not found,topic:tickers.{UNKNOWN}; it "
        "does not list the symbol: correct BYBIT_LINEAR_SYMBOLS",
    ]
    assert named(after) == [EARLY, DELISTED, UNKNOWN]
    assert "refuses tickers, publicTrade" in after[1]
    silent = [log["symbol"] for log in logs if log["event"] == "symbol_not_served"]
    refused = [log["channel"] for log in logs if log["event"] == "channel_rejected"]
    assert sorted(silent) == [EARLY, DELISTED]
    assert [channel.rpartition(".")[2] for channel in refused] == [UNKNOWN, DELISTED]
