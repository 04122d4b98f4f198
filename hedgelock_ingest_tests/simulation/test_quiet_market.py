"""Quiet markets over sound lines, for hours of virtual time: few connections, no gap, nothing lost."""

import math

import pytest
from structlog.testing import capture_logs

from hedgelock_ingest.bybit.line import Line, LineLimits
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest_tests.processes.proof import prove
from hedgelock_ingest_tests.simulation.small_stage import SmallStage, staged
from hedgelock_ingest_tests.simulation.sockets import Socket

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def _move(stage: SmallStage) -> None:
    stage.exchange.quieten(0.0)
    stage.exchange.beat(moves_account=False)
    stage.exchange.quieten(math.inf)


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("every_s", [15, 40])
def test_market_with_a_rare_update_loses_nothing(copies: int, every_s: int) -> None:
    """Its lines are replaced a few times, one after the other, with their successors opened first."""

    async def test(stage: SmallStage) -> None:
        stage.exchange.beat()
        later = [(10.0, lambda: stage.exchange.quieten(math.inf))]
        later += [(float(at_s), lambda: _move(stage)) for at_s in range(20, 310, every_s)]
        await stage.run(*later, seconds=305.0)

        public = [line for line in stage.lines if not line.name.startswith("private")]
        assert {line.status.reconnects for line in public} == {0}
        assert sum(line.status.rotations for line in public) <= 8
        assert stage.records_of(Topic.INGEST_GAPS) == []
        prove(stage.evidence(early_ms=60_000, late_ms=60_000, beginning_ms=2_500))

    staged(test, copies=copies)


def test_dead_subscriptions_in_a_market_that_is_quiet_now_and_then_are_replaced() -> None:
    """The other line brings what the silent one lacks, so that it is replaced soon after."""

    async def test(stage: SmallStage) -> None:
        def silence_one() -> None:
            socket = next(one for one in stage.exchange.connections() if one.kind == "linear")
            stage.exchange.silence(socket)

        await stage.run(
            (20.0, lambda: stage.exchange.quieten(math.inf)),
            (120.0, silence_one),
            (130.0, lambda: stage.exchange.quieten(0.0)),
            seconds=160.0,
        )

        linear = [line.status for line in stage.lines if line.name.startswith("linear")]
        assert sum(line.reconnects for line in linear) == 1
        assert "stale" in [line.last_cause for line in linear]
        assert stage.records_of(Topic.INGEST_GAPS) == []
        assert all(socket.takes_data for socket in stage.exchange.connections())

    staged(test)


def test_line_whose_channels_were_all_refused_at_first_is_replaced_once_they_are_dead() -> None:
    """While none was accepted, no data was expected: the line is looked at all the same."""

    async def test(stage: SmallStage) -> None:
        def silence_one() -> None:
            socket = next(one for one in stage.exchange.connections() if one.kind == "linear")
            stage.exchange.silence(socket)

        for name in ("tickers.BTCUSDT", "orderbook.50.BTCUSDT"):
            stage.exchange.refuse_subscription(name, stage.clock.monotonic() + 30.0)
        await stage.run((100.0, silence_one), seconds=130.0)

        assert [line.status.last_cause for line in stage.lines if line.status.reconnects] == ["stale"]
        assert all(socket.takes_data for socket in stage.exchange.connections())

    staged(test)


def test_line_that_is_behind_stays_until_its_successor_is_open() -> None:
    """If that cannot be opened, an old connection is better than none."""
    open_meanwhile: list[int] = []

    async def test(stage: SmallStage) -> None:
        def linear() -> list[Socket]:
            return [socket for socket in stage.exchange.connections() if socket.kind == "linear"]

        await stage.run(
            (20.0, lambda: stage.exchange.silence(linear()[0])),
            (21.0, lambda: stage.exchange.hang_connects(stage.clock.monotonic() + 30.0)),
            (35.0, lambda: open_meanwhile.append(len(linear()))),
            seconds=90.0,
        )

        assert all(socket.takes_data for socket in linear())
        assert [line.status.last_cause for line in stage.lines if line.status.reconnects] == ["stale"]

    staged(test)
    assert open_meanwhile == [2]


def test_replacement_of_a_silent_line_does_not_lengthen_the_delay_after_its_loss() -> None:
    """Both connections together were open for more than a minute: the line was stable."""
    attempts: list[dict[str, int]] = []

    async def test(stage: SmallStage) -> None:
        def linear() -> list[Line]:
            return [line for line in stage.lines if line.name.startswith("linear")]

        def drop() -> None:
            attempts.append({line.name: line.status.attempts for line in linear() if line.status.rotations == 1})
            for socket in stage.exchange.connections():
                stage.exchange.drop(socket)

        stage.exchange.refuse_connects(stage.clock.monotonic() + 5.0)
        await stage.run(
            (30.0, lambda: stage.exchange.quieten(math.inf)),
            (75.0, drop),
            (75.5, lambda: attempts.append({line.name: line.status.attempts for line in linear()})),
            seconds=80.0,
        )

    with capture_logs() as logs:
        staged(test)
    before, after = attempts
    assert len(before) == len(after) == 2
    assert min(before.values()) >= 2
    assert set(after.values()) == {1}
    delays = [log["delay_s"] for log in logs if log["event"] == "line_reconnecting" and log["line"] in after]
    assert max(delays[-2:]) <= LineLimits().reconnect_initial_delay_s
