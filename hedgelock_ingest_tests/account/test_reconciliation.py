"""A balance change missed by the stream is found, and a change in flight is not reported."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from pathlib import Path

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgelock_ingest.account import reconciliation
from hedgelock_ingest.account.reconciliation import Balances, missed_changes, wrong_in_view
from hedgelock_ingest.defs.polls.assets import poll_account
from hedgelock_ingest.defs.polls.checks import STREAM_AGREES
from hedgelock_ingest.defs.resources import BybitResource, IngestResource, KafkaResource
from hedgelock_ingest.defs.topics.assets import polled_key
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.processes.account import account_staged
from hedgelock_ingest_tests.processes.stage import eventually

NOW_MS, TOLERANCE_MS = 1_000_000, 10_000


def balances(age_s: float, *, is_complete: bool = False, **coins: str) -> Balances:
    """Return balances of so many seconds before the poll."""
    at_ms = NOW_MS - round(age_s * 1000)
    return Balances(at_ms, {coin: Decimal(amount) for coin, amount in coins.items()}, is_complete)


def polled(**coins: str) -> Balances:
    """Return the complete balances of the poll."""
    return balances(0, is_complete=True, **coins)


@pytest.mark.parametrize(
    ("rest", "stream", "missed"),
    [
        (polled(BTC="2"), [balances(60, BTC="1")], {"BTC": "1"}),
        (polled(BTC="2"), [balances(60, BTC="1"), balances(11, BTC="2.0")], {}),
        (polled(BTC="2"), [balances(60, BTC="2"), balances(11, BTC="1")], {"BTC": "1"}),
        (polled(BTC="2"), [balances(60, BTC="1"), balances(9, BTC="3")], {}),
        (polled(BTC="2"), [balances(60, BTC="1"), balances(-9, BTC="3")], {}),
        (polled(BTC="2"), [balances(60, BTC="1"), balances(-11, BTC="2")], {"BTC": "1"}),
        (polled(BTC="2"), [balances(60, BTC="1"), balances(5, ETH="1")], {"BTC": "1"}),
        (polled(BTC="2"), [balances(60, ETH="1")], {"ETH": "1"}),
        (polled(), [balances(60, is_complete=True, BTC="1")], {"BTC": "1"}),
        (polled(BTC="2"), [balances(60, is_complete=True)], {"BTC": "0"}),
        (polled(BTC="2"), [], {}),
        (polled(BTC="0"), [balances(60, is_complete=True)], {}),
    ],
    ids=[
        "changed, not reported",
        "changed, reported",
        "reported differently later",
        "changes just now",
        "changes just after",
        "reported too late",
        "another coin does not excuse",
        "a removed coin",
        "a coin removed from a complete list",
        "a coin that is new",
        "never reported",
        "zero is as good as absent",
    ],
)
def test_missed_change_is_one_that_was_not_reported_in_time(
    rest: Balances, stream: list[Balances], missed: Mapping[str, str]
) -> None:
    """An old difference counts; a change in flight does not."""
    found = missed_changes(rest, stream, TOLERANCE_MS)
    assert {each.coin: each.observed for each in found} == {coin: Decimal(amount) for coin, amount in missed.items()}


_ANSWERS = 12
"""Answers of a start: three lists of wallet and positions, two of orders and executions, collateral and loans."""
AMOUNTS = st.integers(min_value=0, max_value=3)
CHANGES = st.lists(
    st.tuples(st.integers(min_value=-15, max_value=120), st.sampled_from(("A", "B")), AMOUNTS), max_size=12
)


@given(changes=CHANGES, delay_s=st.floats(min_value=-9.9, max_value=9.9))
def test_stream_that_reports_every_change_causes_no_finding(
    changes: list[tuple[int, str, int]], delay_s: float
) -> None:
    """This holds for any changes, and any delay between REST and stream below the tolerance."""
    ordered = sorted(changes, key=lambda change: -change[0])
    state: dict[str, str] = {}
    for age_s, coin, amount in ordered:
        if age_s + delay_s >= 0:  # REST is ahead of the frames by the delay, or behind
            state[coin] = str(amount)
    frames = [balances(age_s, is_complete=False, **{coin: str(amount)}) for age_s, coin, amount in ordered]
    stream = [balances(130, is_complete=True), *frames]
    assert missed_changes(polled(**state), stream, TOLERANCE_MS) == []


def test_view_is_wrong_where_it_differs_without_a_change_since() -> None:
    """Consumers read the view: whatever its timestamp, it must agree with REST."""
    view = balances(-3, is_complete=True, BTC="1", USDT="5")
    rest = polled(BTC="2", USDT="6")
    assert [each.coin for each in wrong_in_view(rest, view, [balances(4, USDT="5")], TOLERANCE_MS)] == ["BTC"]
    assert wrong_in_view(rest, view, [balances(-2, is_complete=True, BTC="1", USDT="5")], TOLERANCE_MS) == []
    assert wrong_in_view(rest, balances(500, is_complete=True, BTC="2", USDT="6", ETH="0"), [], TOLERANCE_MS) == []


@pytest.mark.proof
async def test_check_distinguishes_a_silent_stream_from_a_stopped_one(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change lost by the line is a warning, since the poll corrects the view; a view without a reader is an error."""
    monkeypatch.setattr(reconciliation, "TOLERANCE_MS", 2_000)
    async with account_staged(kafka, topic_prefix, tmp_path, BYBIT_POLLS="false") as stage:
        for name, value in stage.stream.environment().items():
            monkeypatch.setenv(name, value)
        with dg.DagsterInstance.ephemeral() as instance:
            assert (
                await checked(instance)
            ).description == "no stream has reported this account yet: nothing to compare with"
            stage.stream.start()
            await stage.stream.ready(timeout_s=60)
            await materialized(instance, "collateral", "loans")
            await stage.viewed()
            await stage.stream.until_stats("the last list", lambda found: found["healing"]["answers"] == _ANSWERS)
            await stage.exchange.act("deposit", coin="USDT", amount="5")
            assert (await checked(instance)).passed, "a change under way"

            await stage.exchange.fault("go_silent", category="private")
            await settled()
            await stage.exchange.act("deposit", coin="BTC", amount="0.5")
            silent = await checked(instance)
            assert (silent.passed, silent.severity) == (False, dg.AssetCheckSeverity.WARN), silent
            assert "| private stream | BTC |" in table(silent)
            assert "+0.5" in table(silent)
            assert "USDT" not in table(silent)

            await stage.stream.stopped()
            await settled()
            await stage.exchange.act("deposit", coin="ETH", amount="1")
            stopped = await checked(instance)
            assert (stopped.passed, stopped.severity) == (False, dg.AssetCheckSeverity.ERROR), stopped
            assert "| account-updates | ETH |" in table(stopped)

            stage.stream.start()
            await stage.viewed()
            await eventually("the stream reports all changes again", passing(instance))


async def materialized(instance: dg.DagsterInstance, *parts: str) -> dg.ExecuteInProcessResult:
    ingest = IngestResource(bybit=BybitResource(), kafka=KafkaResource())
    return await asyncio.to_thread(
        dg.materialize,
        [poll_account],
        instance=instance,
        resources={"ingest": ingest},
        selection=[polled_key(part) for part in parts],
    )


async def checked(instance: dg.DagsterInstance) -> dg.AssetCheckEvaluation:
    """Poll the wallet once, and return the check on its stream."""
    result = await materialized(instance, "wallet")
    (check,) = [each for each in result.get_asset_check_evaluations() if each.check_name == STREAM_AGREES]
    return check


def passing(instance: dg.DagsterInstance) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return (await checked(instance)).passed

    return look


def table(check: dg.AssetCheckEvaluation) -> str:
    return str(check.metadata["what differs"].value)


async def settled() -> None:
    """Wait until the last balance is older than the tolerance."""
    due_s = time.monotonic() + reconciliation.TOLERANCE_MS / 1000 + 0.1
    await eventually("older than the tolerance", lambda: asyncio.sleep(0, time.monotonic() > due_s))
