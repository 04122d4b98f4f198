"""Two real lines on the simulated exchange: records after receiving and translating, under faults."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random
from typing import Any

import pytest

from hedgelock_ingest.bybit.line import Line, LineLimits, LineState
from hedgelock_ingest.clock import SystemClock
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.pipeline.receiver import Receiver
from hedgelock_ingest.protocol.line_events import LineKey
from hedgelock_ingest.protocol.messages import BookMessage
from hedgelock_ingest.protocol.rate_limits import ConnectionBudget
from hedgelock_ingest.sandbox.exchange import Scenario, SimulatedExchange
from hedgelock_ingest.translate.translator import Translator
from hedgelock_ingest_tests.pipeline.recorded_arrivals import RecordedArrivals
from hedgelock_ingest_tests.sandbox.exchange_fixtures import Client, connected, eventually
from hedgelock_ingest_tests.translate.translating import check_contracts, values

BOOK, TICKER, TRADES = "orderbook.50.BTCUSDT", "tickers.BTCUSDT", "publicTrade.BTCUSDT"
CHANNELS = (TICKER, TRADES, BOOK)
FEEDS = [f"linear:{channel}" for channel in CHANNELS]


class Reception:
    """Two lines with a receiver, beside a reference client that is connected before them and never fails."""

    def __init__(self, exchange: SimulatedExchange, reference: Client) -> None:
        self.exchange = exchange
        self.faults = exchange
        self.reference = reference
        self.receiver = Receiver(FEEDS, lambda: None, clock=SystemClock())
        limits = LineLimits(reconnect_initial_delay_s=0.02, reconnect_max_delay_s=0.1, close_timeout_s=0.5)
        url, budget = f"{exchange.public_ws_url}/linear", ConnectionBudget()
        self.lines = {
            name: Line(
                name,
                CHANNELS,
                self.receiver,
                url=url,
                budget=budget,
                limits=limits,
                clock=SystemClock(),
                random=Random(),
            )
            for name in ("linear-a", "linear-b")
        }
        self.recorded = RecordedArrivals(self.receiver)

    async def both_joined(self) -> None:
        """Wait until each line could carry every channel alone."""

        def joined() -> bool:
            keys = [LineKey(name, line.status.generation) for name, line in self.lines.items()]
            return all(line.status.state is LineState.CONNECTED for line in self.lines.values()) and all(
                self.receiver.has_joined(key) for key in keys
            )

        await eventually(joined)

    async def goes_on(self, frames: int = 40) -> None:
        """Wait for further frames of the market."""
        until = len(self.reference.data(BOOK)) + frames
        await eventually(lambda: len(self.reference.data(BOOK)) >= until)

    async def has_snapshots(self, count: int) -> None:
        """Wait until that many snapshots of the book have been taken."""

        def has_come() -> bool:
            messages = self.recorded.arrivals.messages
            return sum(isinstance(one, BookMessage) and one.type == "snapshot" for one in messages) == count

        await eventually(has_come)

    async def ticking(self) -> None:
        """Call the receiver's `tick` periodically, as the stream does."""
        while True:
            await asyncio.sleep(0.05)
            self.receiver.tick()

    def output(self) -> "Output":
        """Translate what was received."""
        translator = Translator(state_interval_ms=0)
        records = [
            record
            for position, (frame, message) in enumerate(self.recorded.arrivals, 1)
            for record in translator.translate(position, frame, message)
        ]
        check_contracts(records)
        return Output(
            gaps=values(records, Topic.INGEST_GAPS),
            letters=values(records, Topic.INGEST_DEAD_LETTERS),
            books=values(records, Topic.MARKET_ORDER_BOOKS),
            tickers=[ticker["sequence"] for ticker in values(records, Topic.MARKET_DATA)],
            trades=[trade["trade_id"] for trade in values(records, Topic.MARKET_TRADES)],
        )

    def reference_output(self) -> "Output":
        """The reference client's frames."""
        return Output(
            gaps=[],
            letters=[],
            books=[message["data"] | {"type": message["type"]} for message in self.reference.data(BOOK)],
            tickers=[message["cs"] for message in self.reference.data(TICKER)],
            trades=[row["i"] for message in self.reference.data(TRADES) for row in message["data"]],
        )


class Output:
    """Records or frames, by subject."""

    def __init__(
        self,
        *,
        gaps: list[dict[str, Any]],
        letters: list[dict[str, Any]],
        books: list[dict[str, Any]],
        tickers: list[Any],
        trades: list[Any],
    ) -> None:
        self.gaps, self.letters, self.books, self.tickers, self.trades = gaps, letters, books, tickers, trades

    @property
    def updates(self) -> list[Any]:
        """The update ids of the deltas."""
        return [book["update_id" if "update_id" in book else "u"] for book in self.books if book["type"] == "delta"]


@asynccontextmanager
async def receiving() -> AsyncIterator[Reception]:
    """Run both lines until they have joined; at the end all sent frames have been received."""
    async with AsyncExitStack() as stack:
        exchange = await stack.enter_async_context(SimulatedExchange(Scenario(rate=400)))
        reference = await stack.enter_async_context(connected(exchange.public_ws_url, "linear", *CHANNELS))
        reception = Reception(exchange, reference)
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        running = [tasks.create_task(line.run()) for line in reception.lines.values()]
        ticking = tasks.create_task(reception.ticking())
        await reception.both_joined()
        await reception.goes_on(10)
        yield reception
        await reception.goes_on()
        await asyncio.sleep(0.3)
        for line in reception.lines.values():
            line.stop()
        await asyncio.wait(running)
        ticking.cancel()


def check_complete(reception: Reception) -> Output:
    """Fail unless all frames of the reference client in our time were published once and in order."""
    output, seen = reception.output(), reception.reference_output()
    for ours, theirs in ((output.trades, seen.trades), (output.tickers, seen.tickers), (output.updates, seen.updates)):
        begin = min(n for n, one in enumerate(theirs) if one in ours)
        end = max(n for n, one in enumerate(theirs) if one in ours) + 1
        assert [one for one in ours if one in theirs] == theirs[begin:end]
        assert len(set(ours)) == len(ours)
    assert reception.receiver.late == 0
    return output


async def test_lines_that_fail_by_turns_lose_nothing() -> None:
    """One of two lines may fail at any time."""
    async with receiving() as reception:
        for number in range(8):
            reception.faults.drop_lines("linear", nth=1 + number % 2, how=("reset", "close")[number % 2])
            await reception.goes_on(15)
            await reception.both_joined()

    output = check_complete(reception)
    assert output.gaps == []
    assert output.letters == []
    assert all(book["continuous"] for book in output.books)


async def test_update_withheld_from_one_line_comes_by_the_other() -> None:
    """There is no gap, and no snapshot is requested."""
    async with receiving() as reception:
        for nth in (1, 2, 1, 2):
            reception.faults.skip_update("linear", BOOK, nth=nth)
            await reception.goes_on(10)

    output = check_complete(reception)
    assert output.gaps == []
    assert all(book["continuous"] for book in output.books)
    assert [book["type"] for book in output.books].count("snapshot") == 1


async def test_update_withheld_from_all_lines_is_one_gap_until_the_requested_snapshot() -> None:
    """Nothing else is lost: the other line continues while one resubscribes."""
    async with receiving() as reception:
        for number in range(3):
            reception.faults.skip_update("linear", BOOK)
            await reception.has_snapshots(number + 2)

    output = check_complete(reception)
    assert [gap["feed"] for gap in output.gaps] == [f"linear:{BOOK}"] * 3
    assert {gap["reason"] for gap in output.gaps} == {"an update was skipped"}
    snapshots = [number for number, book in enumerate(output.books) if book["type"] == "snapshot"]
    assert len(snapshots) == 4
    assert output.books[-1]["continuous"]


@pytest.mark.parametrize("what", ["restart_book", "resend_snapshot"])
async def test_unrequested_snapshot_is_taken_once(what: str) -> None:
    """Bybit sends one after a restart or a failure of its service; both lines deliver it, and no update is missing."""
    async with receiving() as reception:
        getattr(reception.faults, what)("linear", BOOK)

    output = reception.output()
    assert output.gaps == []
    assert all(book["continuous"] for book in output.books)
    assert [book["type"] for book in output.books].count("snapshot") == 2
    assert reception.receiver.late == 0


async def test_frames_sent_twice_are_published_once() -> None:
    """This holds for duplicates of one line and of two."""
    async with receiving() as reception:
        reception.faults.duplicate_frames("linear")
        await reception.goes_on(30)
        reception.faults.duplicate_frames("linear", is_on=False)

    output = reception.output()
    assert len(set(output.trades)) == len(output.trades)
    assert len(set(output.updates)) == len(output.updates)
    assert len(set(output.tickers)) == len(output.tickers)
    assert output.gaps == []


@pytest.mark.parametrize("kind", ["invalid_json", "truncated", "wrong_types", "unknown_topic", "invalid_utf8", "empty"])
async def test_malformed_frame_is_one_dead_letter_per_line_without_other_effect(kind: str) -> None:
    """The valid frames around it are published as usual."""
    async with receiving() as reception:
        for nth in (1, 2):  # 0 is the reference client
            assert reception.faults.inject(kind, "linear", TICKER, nth=nth) == 1
        await reception.goes_on(5)

    output = check_complete(reception)
    assert sorted(letter["line"] for letter in output.letters) == ["linear-a", "linear-b"]
    assert output.gaps == []
    assert not any(json.dumps(letter["reason"]).startswith('"{') for letter in output.letters)
