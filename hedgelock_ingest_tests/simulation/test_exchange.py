"""The scripted exchange with real lines: proofs of the records that real translation makes of its frames."""

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from copy import deepcopy
from typing import Any

import pytest

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.line_events import LineKey
from hedgelock_ingest.protocol.messages import DataMessage
from hedgelock_ingest_tests.processes.evidence import Outage, PublishedRecord
from hedgelock_ingest_tests.processes.proof import Proved, prove
from hedgelock_ingest_tests.simulation.account_proof import check_account
from hedgelock_ingest_tests.simulation.exchange import Exchange
from hedgelock_ingest_tests.simulation.small_stage import SmallStage, staged
from hedgelock_ingest_tests.simulation.sockets import Socket

BOOK = "orderbook.50.BTCUSDT"

type Records = dict[Topic, list[PublishedRecord]]


def frames_of(stage: SmallStage) -> int:
    """Count the frames that all lines have read."""
    return sum(line.status.frames for line in stage.lines)


def _all_of(exchange: Exchange, kind: str, act: Callable[[Socket], object]) -> None:
    for socket in [one for one in exchange.connections() if one.kind == kind]:
        act(socket)


def _drop_all(exchange: Exchange) -> None:
    for kind in ("spot", "linear", "private"):
        _all_of(exchange, kind, exchange.drop)


def _refuse_private(exchange: Exchange) -> None:
    exchange.refuse_connects(exchange.clock.monotonic() + 4)
    _all_of(exchange, "private", exchange.drop)


def _lose_acks(exchange: Exchange) -> None:
    exchange.lose_acks(exchange.clock.monotonic() + 1)
    _drop_all(exchange)


def _delay_acks(exchange: Exchange) -> None:
    exchange.late_acks(2, exchange.clock.monotonic() + 1)
    _drop_all(exchange)


def _send_data_first(exchange: Exchange) -> None:
    exchange.data_before_ack(exchange.clock.monotonic() + 2)
    _drop_all(exchange)


def _limit_rest(exchange: Exchange) -> None:
    exchange.rest_limited(exchange.clock.monotonic() + 2)
    _drop_all(exchange)


def _delay_and_cut_one(exchange: Exchange) -> None:
    sockets = exchange.connections()
    exchange.delay(sockets[0], 1.5)
    exchange.drop(sockets[1])


_FAULTS: dict[str, Callable[[Exchange], object]] = {
    "drop": _drop_all,
    "close": lambda exchange: _all_of(exchange, "linear", exchange.close),
    "half open": lambda exchange: _all_of(exchange, "spot", exchange.half_open),
    "delay": _delay_and_cut_one,
    "refused": _refuse_private,
    "no acknowledgement": _lose_acks,
    "late acknowledgement": _delay_acks,
    "data first": _send_data_first,
    "double": lambda exchange: _all_of(exchange, "spot", lambda socket: exchange.double(socket, BOOK)),
    "restart": lambda exchange: exchange.restart_book(("linear", BOOK)),
    "snapshot": lambda exchange: exchange.snapshot_again(("linear", "tickers.BTCUSDT")),
    "limited": _limit_rest,
}


def _prove(stage: SmallStage) -> Proved:
    # The feeds are slow: the last frame before an outage may be much older.
    evidence = stage.evidence(unread_ms=2_500, gaps_an_outage=3, early_ms=20_000)
    proved = prove(evidence)
    findings = check_account(stage.exchange, evidence.records, evidence.outages, unread_ms=2_500)
    assert not findings, "\n".join(findings)
    return proved


def _outage(stage: SmallStage, seconds: float) -> None:
    now_ms = stage.exchange.now_ms()
    stage.outages.append(Outage(now_ms, now_ms + int(seconds * 1000)))


def test_frames_of_an_undisturbed_exchange_pass_the_proofs() -> None:
    """Our decoders and the proofs accept its frames as they accept Bybit's."""

    async def run(stage: SmallStage) -> None:
        await stage.run(seconds=30)
        proved = _prove(stage)
        assert proved.events > 100
        assert proved.in_kafka == proved.events - proved.before_the_first
        assert not stage.records_of(Topic.INGEST_GAPS)
        assert len(stage.records_of(Topic.EXECUTIONS)) > 1

    staged(run)


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("name", _FAULTS)
def test_no_single_fault_breaks_a_guarantee(name: str, copies: int) -> None:
    """Each fault affects the real lines, and everything missing afterwards lies in a recorded gap."""

    async def run(stage: SmallStage) -> None:
        def strike() -> None:
            _outage(stage, 16)
            _FAULTS[name](stage.exchange)

        await stage.run((6.0, strike), (7.0, lambda: stage.exchange.act(stage.exchange.account.fill)), seconds=24)
        _prove(stage)

    staged(run, copies=copies)


def test_skipped_book_update_is_answered_by_a_new_snapshot() -> None:
    """The real line subscribes again and receives a new snapshot, and one gap records what was missed."""

    async def run(stage: SmallStage) -> None:
        def skip() -> None:
            _outage(stage, 4)
            _all_of(stage.exchange, "linear", lambda socket: stage.exchange.skip(socket, BOOK))

        await stage.run((5.0, skip), seconds=12)
        _prove(stage)
        assert [gap.key for gap in stage.records_of(Topic.INGEST_GAPS)] == [f"linear:{BOOK}"]
        assert stage.records_of(Topic.MARKET_ORDER_BOOKS)[-1].value["continuous"]

    staged(run, copies=1)


def test_rest_fills_gaps_of_trades_and_executions() -> None:
    """The real REST client recovers fills and trades that no line received."""

    async def run(stage: SmallStage) -> None:
        def leave() -> None:
            _outage(stage, 8)
            stage.exchange.refuse_connects(stage.clock.monotonic() + 4)
            _drop_all(stage.exchange)

        fills = [(7.0 + n / 2, lambda: stage.exchange.act(stage.exchange.account.fill)) for n in range(3)]
        await stage.run((6.0, leave), *fills, seconds=20)
        assert _prove(stage).healed > 0
        assert sum(one.value["healed"] for one in stage.records_of(Topic.EXECUTIONS)) >= len(fills)

    staged(run)


def test_each_malformed_frame_that_arrives_is_a_dead_letter() -> None:
    """Arrivals are counted, so that a proof can require each of them."""

    async def run(stage: SmallStage) -> None:
        def send() -> None:
            for socket in stage.exchange.connections():
                stage.exchange.send_malformed(socket)

        acts = [(1.0 + n / 2, send) for n in range(5)]
        await stage.run(*acts, seconds=5)
        assert stage.exchange.known_dead_letters() == len(stage.exchange.malformed) > 20
        _prove(stage)

    staged(run)


def test_ended_process_receives_nothing() -> None:
    """Frames under way to it are lost, and the exchange closes its connections."""

    async def run(stage: SmallStage) -> None:
        frames = 0

        def die() -> None:
            nonlocal frames
            stage.exchange.beat()
            stage.lifetime.is_dead = True
            stage.exchange.process_ended(stage.lifetime)
            frames = frames_of(stage)

        await stage.run((3.0, die), seconds=5)
        assert frames_of(stage) == frames
        assert {one.closed_ms for one in stage.exchange.sockets} == {stage.exchange.sockets[0].closed_ms}

    staged(run)


def test_the_same_seed_gives_the_same_frames() -> None:
    """A failing schedule can be repeated."""
    raws: list[Any] = []

    async def run(stage: SmallStage) -> None:
        await stage.run((3.0, lambda: _drop_all(stage.exchange)), seconds=8)
        raws.append({channel: log.raws for channel, log in stage.exchange.logs.items()})

    for _ in range(2):
        staged(run, seed=11)
    assert raws[0] == raws[1]


_process: ContextVar[str] = ContextVar("process")


def test_nothing_of_the_exchange_runs_in_the_context_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill drops what the process's context has scheduled, which must not include callbacks of the exchange."""
    seen: list[str | None] = []

    async def run(stage: SmallStage) -> None:
        _process.set("stream")
        written = Socket._arrive

        def arrive(socket: Socket) -> None:
            seen.append(_process.get(None))
            written(socket)

        monkeypatch.setattr(Socket, "_arrive", arrive)
        read = stage.receiver.frames_received

        def frames_received(
            line: LineKey, raws: Sequence[bytes], messages: Sequence[DataMessage | None], received_ns: int
        ) -> None:
            assert _process.get(None) == "stream"
            read(line, raws, messages, received_ns)

        monkeypatch.setattr(stage.receiver, "frames_received", frames_received)
        await stage.run(seconds=3)
        assert frames_of(stage) > 10

    staged(run)
    assert set(seen) == {None}


def _lose_an_execution(records: Records) -> None:
    del records[Topic.EXECUTIONS][1]


def _double_an_execution(records: Records) -> None:
    records[Topic.EXECUTIONS].append(records[Topic.EXECUTIONS][-1])


def _change_a_price(records: Records) -> None:
    records[Topic.EXECUTIONS][0].value["price"] += "1"


def _lose_an_order(records: Records) -> None:
    del records[Topic.ORDER_UPDATES][1]


def _leave_out_a_position(records: Records) -> None:
    changes = records[Topic.POSITION_CHANGES]
    symbols = [one.value["symbol"] for one in changes]
    del changes[next(n for n, symbol in enumerate(symbols) if symbols.count(symbol) > 2 and symbol in symbols[:n])]


def _go_back(records: Records) -> None:
    records[Topic.ACCOUNT_UPDATES].append(records[Topic.ACCOUNT_UPDATES][0])


def _change_the_last_view(records: Records) -> None:
    records[Topic.ACCOUNT_UPDATES][-1].value["loan_amount"] = "1"


_BREACHES: dict[str, Callable[[Records], None]] = {
    "neither in Kafka nor in a recorded gap": _lose_an_execution,
    "is 2 times in Kafka": _double_an_execution,
    "the exchange sent": _change_a_price,
    "was written to a connection that was not cut": _lose_an_order,
    "does not begin where": _leave_out_a_position,
    "shows an older": _go_back,
    "the last one has loan": _change_the_last_view,
}


def test_every_broken_guarantee_of_the_account_is_found() -> None:
    """Each kind of damage to good evidence gives the right finding."""

    async def run(stage: SmallStage) -> None:
        fills = [(2.0 + n, lambda: stage.exchange.act(stage.exchange.account.fill)) for n in range(8)]
        await stage.run(*fills, seconds=12)
        _prove(stage)
        for expected, spoil in _BREACHES.items():
            spoiled = deepcopy(stage.published())
            spoil(spoiled)
            findings = check_account(stage.exchange, spoiled, [])
            assert any(expected in finding for finding in findings), (spoil.__name__, findings[:5])

    staged(run)
