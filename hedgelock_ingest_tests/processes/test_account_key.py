"""API keys: which keys are accepted, how a refused one is reported, and what runs without the account."""

from pathlib import Path
from typing import Any

import pytest

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.exchange.keys import KEYS
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.processes.account import AccountStage, account_staged
from hedgelock_ingest_tests.processes.stage import eventually


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("trading", ("withdraw", '"Read-Only"', "BYBIT_ALLOW_TRADING_KEY=true")),
        pytest.param("expired", ("expired",), marks=pytest.mark.proof),
        pytest.param("ip-bound", ("IP addresses",), marks=pytest.mark.proof),
        pytest.param("demo", ("demo trading", "BYBIT_ALLOW_TRADING_KEY=true"), marks=pytest.mark.proof),
    ],
)
async def test_refused_key_ends_the_start_with_3(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path, key: str, words: tuple[str, ...]
) -> None:
    """No line is opened with such a key, and the message names the action without the key."""
    async with account_staged(kafka, topic_prefix, tmp_path, key=key) as stage:
        stage.stream.start()
        assert await stage.stream.ended(timeout_s=30) == 3
        state = await stage.exchange.state()
    log = stage.stream.log_file.read_text()
    assert all(word in log.replace('\\"', '"') for word in words), log
    assert KEYS[key].api_key not in log
    assert (state["open"], state["closed"]) == ([], [])


@pytest.mark.proof
async def test_allowed_trading_key_runs_and_is_reported(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """The operator may allow it, and health keeps reporting it."""
    async with account_staged(kafka, topic_prefix, tmp_path, key="trading", BYBIT_ALLOW_TRADING_KEY="true") as stage:
        await stage.begun()
        await stage.view_is_right("an account with a trading key")
        assert _mentions(await _reasons(stage), "may trade")


@pytest.mark.proof
async def test_key_that_expires_in_three_days_is_reported(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """Everything runs, and health and log report the expiry."""
    async with account_staged(kafka, topic_prefix, tmp_path, key="expiring") as stage:
        await stage.begun()
        await stage.view_is_right("an account with a key that expires")
        status, answer = await stage.stream.page("health")
        stats = await stage.stream.stats()
    assert (status, answer["status"]) == (200, "degraded")
    assert _mentions(answer["reasons"], "expires in 3 days")
    assert stats["key"]["state"] == "accepted"
    assert stats["key"]["expires_at"] is not None
    assert "api_key_warning" in stage.stream.log_file.read_text()


async def test_without_a_key_public_feeds_run_and_the_log_reports_it(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """A missing key is not a failure: trades flow, and what is off is logged once."""
    async with account_staged(kafka, topic_prefix, tmp_path, key=None, scenario={"rate": 100}) as stage:
        stage.stream.start()
        await stage.stream.ready()
        stats = await stage.stream.until_stats("trades", lambda found: found["records"].get("market-trades", 0) > 20)
        kinds = {line["kind"] for line in (await stage.exchange.state())["open"]}
        await stage.stream.stopped()
        assert await stage.values(Topic.ACCOUNT_RAW) == []
    assert kinds == {"linear"}
    assert stats["key"]["state"] == "missing"
    assert stats["account"] is None
    assert stage.stream.log_file.read_text().count("only public feeds run") == 1


@pytest.mark.proof
async def test_private_lines_wait_until_the_key_is_known(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """Public feeds do not wait for the answer about the key; the account starts after it."""
    async with account_staged(kafka, topic_prefix, tmp_path, scenario={"rate": 100}) as stage:
        await stage.exchange.fault("fail_rest", kind="status", path="/v5/user", count=None)
        stage.stream.start()
        await stage.stream.until_stats("trades", lambda found: found["records"].get("market-trades", 0) > 20)
        assert _mentions(await _reasons(stage), "private lines wait, the API key is unknown")
        assert {line["kind"] for line in (await stage.exchange.state())["open"]} == {"linear"}
        await stage.exchange.fault("restore_rest")
        await stage.viewed()
        await stage.exchange.act("fill", symbol="BTCUSDT", side="Sell", qty="0.01")

        async def filled() -> bool:
            last = (await stage.exchange.account())["executions"][-1]["execId"]
            return last in {one["exec_id"] for one in await stage.values(Topic.EXECUTIONS)}

        await eventually("the fill", filled)
        assert not _mentions(await _reasons(stage), "private lines wait")


@pytest.mark.proof
async def test_without_the_permission_spot_only_the_loan_is_missing(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """Loans cannot be polled, which is reported; wallet, positions and fills continue."""
    async with account_staged(kafka, topic_prefix, tmp_path, key="no-spot") as stage:
        reasons = await _reasons_without_loans(stage)
        assert await stage.values(Topic.ACCOUNT_UPDATES) == []
    assert _mentions(reasons, "lacks the permission Spot")
    assert _mentions(reasons, "no merged view of the account yet, missing: collateral, loans")
    assert _mentions(reasons, "loans is unavailable")


@pytest.mark.proof
async def test_key_of_demo_trading_runs_without_loans_if_it_is_allowed(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """Bybit describes neither its rights nor a loan: both are reported; wallet, positions and fills run."""
    async with account_staged(kafka, topic_prefix, tmp_path, key="demo", BYBIT_ALLOW_TRADING_KEY="true") as stage:
        reasons = await _reasons_without_loans(stage)
    assert _mentions(reasons, "its rights and expiry are unknown")
    assert _mentions(reasons, "loans is unavailable: Bybit's demo trading does not offer this")


async def _reasons(stage: AccountStage) -> list[str]:
    found: list[str] = (await stage.stream.page("health"))[1]["reasons"]
    return found


def _mentions(reasons: list[Any], words: str) -> bool:
    return any(words in reason for reason in reasons)


async def _reasons_without_loans(stage: AccountStage) -> list[str]:
    """Start, wait until a fill is published and loans alone are unavailable, and return the reasons of health."""
    stage.stream.start()
    await stage.stream.ready()
    await stage.stream.until_stats(
        "wallet and positions", lambda found: found["account"]["missing_parts"] == ["collateral", "loans"]
    )
    [fill] = await stage.exchange.act("fill", symbol="BTCUSDT", side="Sell", qty="0.01")
    await stage.stream.until_stats("a troubled poll", lambda found: "loans" in found["account"]["troubles"])
    reasons = await _reasons(stage)

    async def filled() -> bool:
        return fill in {one["exec_id"] for one in await stage.values(Topic.EXECUTIONS)}

    await eventually("the fill", filled)
    return reasons
