"""The gate before the account: which key is let in, what is said of one that is not, and what runs all the same."""

from pathlib import Path
from typing import Any

import pytest

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.exchange.keys import KEYS
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.scenarios.account import AccountStage, account_staged
from hedgelock_ingest_tests.scenarios.stage import eventually


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("trading", ("withdraw", '"Read-Only"', "BYBIT_ALLOW_TRADING_KEY=true")),
        pytest.param("expired", ("expired",), marks=pytest.mark.proof),
        pytest.param("ip-bound", ("IP addresses",), marks=pytest.mark.proof),
    ],
)
async def test_key_that_is_not_taken_ends_the_start_with_3(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path, key: str, words: tuple[str, ...]
) -> None:
    """Nothing is opened with such a key, and what to do stands in the message, without the key."""
    async with account_staged(kafka, topic_prefix, tmp_path, key=key) as stage:
        stage.stream.start()
        assert await stage.stream.ended(timeout_s=30) == 3
        state = await stage.exchange.state()
    log = stage.stream.log_file.read_text()
    assert all(word in log.replace('\\"', '"') for word in words), log
    assert KEYS[key].api_key not in log
    assert (state["open"], state["closed"]) == ([], [])


@pytest.mark.proof
async def test_trading_key_that_was_allowed_runs_and_is_told_of(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """The operator decides, and health does not let him forget."""
    async with account_staged(kafka, topic_prefix, tmp_path, key="trading", BYBIT_ALLOW_TRADING_KEY="true") as stage:
        await stage.begun()
        await stage.view_is_right("an account with a trading key")
        assert _mentions(await _reasons(stage), "may trade")


@pytest.mark.proof
async def test_key_that_expires_in_three_days_is_told_of(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """Everything runs, and health and log say when it will not any more."""
    async with account_staged(kafka, topic_prefix, tmp_path, key="expiring") as stage:
        await stage.begun()
        await stage.view_is_right("an account with a key that expires")
        status, answer = await stage.stream.page("health")
        stats = await stage.stream.stats()
    assert (status, answer["status"]) == (200, "degraded")
    assert _mentions(answer["reasons"], "expires in 3 days")
    assert stats["key"]["state"] == "accepted"
    assert stats["key"]["expires_at"] is not None
    assert "key_warning" in stage.stream.log_file.read_text()


async def test_without_a_key_public_feeds_run_and_it_says_so(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """No account is no failure: trades flow, and what is off is said once."""
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
async def test_private_lines_wait_until_bybit_says_what_the_key_is(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """Public feeds do not wait for the key's answer; the account comes when it has come."""
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
    """Loans cannot be asked for, which is said; wallet, positions and fills go on."""
    async with account_staged(kafka, topic_prefix, tmp_path, key="no-spot") as stage:
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
        assert await stage.values(Topic.ACCOUNT_UPDATES) == []
    assert _mentions(reasons, "lacks the permission Spot")
    assert _mentions(reasons, "no merged view of the account yet, it waits for: collateral, loans")
    assert _mentions(reasons, "loans cannot be had")


async def _reasons(stage: AccountStage) -> list[str]:
    found: list[str] = (await stage.stream.page("health"))[1]["reasons"]
    return found


def _mentions(reasons: list[Any], words: str) -> bool:
    return any(words in reason for reason in reasons)
