"""Quiet markets over sound lines, for hours of virtual time: few connections, no gap, nothing lost."""

import math

import pytest

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest_tests.processes.proof import prove
from hedgelock_ingest_tests.simulation.small_stage import SmallStage, staged

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
