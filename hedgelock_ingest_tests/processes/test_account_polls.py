"""Polls of the account: intervals are kept without drift, and the polls recover from an outage of REST."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.processes.account import AccountStage, account_staged, in_ms
from hedgelock_ingest_tests.processes.stage import eventually, now_ms

pytestmark = pytest.mark.proof

_SECONDS = 12
_INTERVAL_S = {"collateral": 0.5, "loans": 0.75}


async def test_intervals_of_polls_are_kept_without_drift(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """Each slot of each interval has one message: the time that answers take does not accumulate."""
    settings: dict[str, Any] = {
        "BYBIT_COLLATERAL_POLL_INTERVAL": str(_INTERVAL_S["collateral"]),
        "BYBIT_LOAN_POLL_INTERVAL": str(_INTERVAL_S["loans"]),
    }
    async with account_staged(kafka, topic_prefix, tmp_path, **settings) as stage:
        await stage.begun()
        await stage.stream.until_stats(
            "gap fill over, whose answers look like those of polls", lambda found: found["healing"]["answers"] >= 6
        )
        began = (await stage.stream.stats())["account"]["polls"]
        since_ms = now_ms()
        polls = int(_SECONDS / _INTERVAL_S["collateral"])
        found = await stage.stream.until_stats(
            "enough polls",
            lambda found: found["account"]["polls"]["collateral"]["answers"] - began["collateral"]["answers"] >= polls,
        )
        await stage.stream.stopped()
        raw = await stage.values(Topic.ACCOUNT_RAW)
    assert found["account"]["troubles"] == {}
    for part, interval_s in _INTERVAL_S.items():
        times_ms = [in_ms(one["timestamp"]) for one in raw if one["origin"] == f"rest:{part}"]
        missed = found["account"]["polls"][part]["missed"]
        _check_slots([at_ms for at_ms in times_ms if at_ms >= since_ms], interval_s * 1000, missed=missed)


async def test_polls_recover_from_an_outage_of_rest(kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path) -> None:
    """While Bybit does not answer, health reports it and the stream continues; then the loan is up to date again."""
    async with account_staged(kafka, topic_prefix, tmp_path) as stage:
        await stage.begun()
        await stage.view_is_right("before the outage")
        await stage.exchange.fault("fail_rest", kind="status", path="/v5/crypto-loan", count=None)
        await stage.stream.until_stats(
            "both polls in trouble",
            lambda found: all(
                "HTTP 503" in (found["account"]["polls"][part]["trouble"] or "") for part in ("collateral", "loans")
            ),
        )
        status, health = await stage.stream.page("health")
        assert (status, health["status"]) == (200, "degraded")
        assert any(reason.startswith("collateral is unavailable") for reason in health["reasons"]), health

        await stage.exchange.act("repay", coin="USDT", amount="111.5")
        [fill] = await stage.exchange.act("fill", symbol="BTCUSDT", side="Sell", qty="0.01")
        await eventually("the fill", _is_filled(stage, fill))

        await stage.exchange.fault("restore_rest")
        await stage.view_is_right("after the outage")
        await stage.stream.until_stats("no trouble", lambda found: found["account"]["troubles"] == {})
        failures = (await stage.stream.stats())["account"]["polls"]["collateral"]["failures"]
        assert await stage.values(Topic.INGEST_GAPS) == []
    assert failures >= 1


def _is_filled(stage: AccountStage, fill: str) -> Callable[[], Awaitable[bool]]:
    async def filled() -> bool:
        return fill in {one["exec_id"] for one in await stage.values(Topic.EXECUTIONS)}

    return filled


def _check_slots(times_ms: Sequence[int], interval_ms: float, *, missed: int) -> None:
    """Check that each slot but the missed ones has one message, and that the last messages have not drifted."""
    late_ms = [(at_ms - times_ms[0] + interval_ms / 2) % interval_ms - interval_ms / 2 for at_ms in times_ms]
    grid_ms = times_ms[0] + min(late_ms)  # answers come late, never early
    slots = [int((at_ms - grid_ms) / interval_ms + 0.01) for at_ms in times_ms]
    assert len(set(slots)) == len(slots), f"two messages in a slot: {times_ms}"
    assert slots[-1] - slots[0] + 1 - len(slots) <= missed, f"slots without a message: {times_ms}"
    assert len(slots) >= _SECONDS * 1000 / interval_ms - missed - 1
    assert abs(median(late_ms[-8:]) - median(late_ms[:8])) < interval_ms / 10, f"drift: {late_ms}"
