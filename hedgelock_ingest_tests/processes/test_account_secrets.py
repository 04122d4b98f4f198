"""Secrets: with all log levels on, no key, balance, debt or position appears in logs, pages or command output."""

import re
from pathlib import Path
from typing import Any

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.exchange.keys import KEYS
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.processes.account import AccountStage, account_staged

_BALANCE, _SIZE, _DEBT = "987654.321987", "7531.197", "12345.678912"
_MALFORMED = ("invalid_json", "truncated", "wrong_types", "unknown_topic", "binary", "invalid_utf8", "not_an_object")
_CHANNELS = ("wallet", "position", "order", "execution")
_REST_FAULTS: tuple[dict[str, Any], ...] = (
    {"kind": "truncated"},
    {"kind": "html", "status": 502},
    {"kind": "ret_code", "ret_code": 10004},
    {"kind": "ret_code", "ret_code": 10016},
)
_PAGES = ("health", "ready", "stats", "metrics", "openapi.json")


async def test_nothing_secret_appears_in_logs_pages_or_output(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """A marked key, secret, balance, debt and position are in no log, page, reason or command output."""
    async with account_staged(kafka, topic_prefix, tmp_path, MONITORING_LOG_LEVEL="DEBUG") as stage:
        await _mark(stage)
        await stage.begun()
        await stage.exchange.act("fill", symbol="BTCUSDT", side="Buy", qty="0.001")
        await stage.view_is_right("the marked account")
        marks = await _marks(stage)
        await _spoil(stage)
        shown = {page: await stage.text(page) for page in _PAGES}
        for command in ("check", "gaps --json", "dead-letters list"):
            done = await stage.command(*command.split())
            assert done.returncode == 0, done.stdout + done.stderr
            shown[command] = done.stdout + done.stderr
        await stage.stream.kill()
        shown["killed log"] = stage.stream.log_file.read_text(errors="replace")
        await stage.begun()
        await stage.stream.stopped()
        shown["log"] = stage.stream.log_file.read_text(errors="replace")
        letters = await stage.values(Topic.INGEST_DEAD_LETTERS)
        shown["reasons"] = "\n".join(letter["reason"] for letter in letters)
        published = str(await stage.values(Topic.ACCOUNT_UPDATES))

    assert len(letters) >= len(_MALFORMED)
    assert _found({_BALANCE, _SIZE}, {"Kafka": published}) != []
    assert _found(marks, shown) == []


async def test_key_with_a_wrong_signature_is_refused_without_being_shown(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """Bybit repeats the key in its refusal of a signature; our messages do not."""
    wrong = "Wr0ngSecretWr0ngSecretWr0ngSecret99"
    async with account_staged(
        kafka, topic_prefix, tmp_path, MONITORING_LOG_LEVEL="DEBUG", BYBIT_API_SECRET=wrong
    ) as stage:
        stage.stream.start()
        assert await stage.stream.ended(timeout_s=30) == 3
        checked = await stage.command("check")
        shown = {
            "log": stage.stream.log_file.read_text(errors="replace"),
            "check": checked.stdout + checked.stderr,
        }
    assert checked.returncode == 1
    assert "BYBIT_API_SECRET" in shown["log"]
    assert _found({KEYS["read-only"].api_key, wrong}, shown) == []


async def _mark(stage: AccountStage) -> None:
    act = stage.exchange.act
    await act("withdraw", coin="USDC", amount="5000")
    await act("deposit", coin="USDC", amount=_BALANCE)
    await act("deposit", coin="USDT", amount="5000000")
    await act("fill", symbol="ETHUSDT", side="Buy", qty="4444.37")
    await act("fill", symbol="BTCUSDT", side="Buy", qty=_SIZE)
    await act("borrow", coin="USDC", amount=_DEBT)


async def _marks(stage: AccountStage) -> set[str]:
    """Collect the key and every figure of the account that is long enough to be unique."""
    key = KEYS["read-only"]
    account = await stage.exchange.account()
    figures = {key.api_key, key.api_secret, _BALANCE, _SIZE, _DEBT}
    for coin in account["wallet"]["coin"]:
        figures |= {coin["walletBalance"], coin["equity"], coin["usdValue"], coin["cumRealisedPnl"]}
    for position in account["positions"]:
        figures |= {position[name] for name in ("size", "positionValue", "unrealisedPnl", "cumRealisedPnl")}
    loans = account["books"]["loans"]
    figures |= {loans["totalDebt"], loans["totalCollateral"], loans["ltv"]}
    figures |= {row[name] for row in account["executions"] for name in ("execId", "execValue", "execFee")}
    marks = {figure for figure in figures if len(figure) >= 8}  # shorter ones meet latencies by chance
    assert len(marks) > 20
    return marks


async def _spoil(stage: AccountStage) -> None:
    """Inject every malformed frame and REST fault, and wait until the stream has processed all of them."""
    for kind in _MALFORMED:
        for channel in _CHANNELS:
            await stage.exchange.fault("inject", kind=kind, category="private", channel=channel)
    await stage.stream.until_stats("the letters", lambda found: found["dead_letters"] >= len(_MALFORMED))
    for fault in _REST_FAULTS:
        failures = (await stage.stream.stats())["rest"]["failures"]
        await stage.exchange.fault("fail_rest", path="/v5/", count=None, **fault)
        await stage.stream.until_stats("a failure", lambda found, seen=failures: found["rest"]["failures"] > seen)
        await stage.exchange.fault("restore_rest")
    await stage.exchange.fault("drop_lines", category="private")
    await stage.private_gaps_recorded(1)


def _found(marks: set[str], shown: dict[str, str]) -> list[str]:
    """Return each mark that appears in a text as a separate figure or word."""
    return [
        f"{mark} in {place}: {text[max(found.start() - 120, 0) : found.end() + 40]}"
        for place, text in shown.items()
        for mark in marks
        if (found := re.search(rf"(?<![\w.]){re.escape(mark)}(?!\w|\.\d)", text))
    ]
