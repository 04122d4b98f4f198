"""`check` finds problems that would stop the service, states the action, and never hangs."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiohttp import web
from pydantic import ByteSize, SecretStr

from hedgelock_ingest.audit import check
from hedgelock_ingest.audit.check import (
    Finding,
    Severity,
    clock_finding,
    journal_findings,
    key_findings,
    run_checks,
    worst,
)
from hedgelock_ingest.bybit.probe import ClockAnswer
from hedgelock_ingest.bybit.rest_client import RestClient
from hedgelock_ingest.journal.lock import JournalLock
from hedgelock_ingest.kafka.topic_admin import ensure_topics
from hedgelock_ingest.protocol.api_key_rules import KeyInformation, judge_key, judge_undescribed_key
from hedgelock_ingest.sandbox.exchange.keys import KEYS
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest.settings import TOPIC_FIELDS, Settings
from hedgelock_ingest_tests.bybit.proxies import socks_proxy
from hedgelock_ingest_tests.sandbox.exchange_fixtures import running_exchange

NOW_MS = 1_776_149_990_532  # 2026-04-14T06:59:50Z


def subjects(findings: list[Finding], severity: Severity) -> list[str]:
    """Return the subjects with a severity."""
    return [each.subject for each in findings if each.severity is severity]


def text_of(findings: list[Finding], subject: str) -> str:
    """Return the text about one subject."""
    (text,) = [each.text for each in findings if each.subject == subject]
    return text


def entries(folder: Path) -> list[Path]:
    """Return all entries of a folder."""
    return list(folder.iterdir())


async def test_all_findings_are_ok_if_everything_answers(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """A correct set-up causes no warning, and `check` leaves no files behind."""
    names = {field: topic_prefix + field for field in TOPIC_FIELDS}
    async with running_exchange() as exchange:
        settings = Settings(
            kafka_bootstrap_servers=kafka.bootstrap_servers,
            bybit_public_ws_url=exchange.public_ws_url,
            bybit_rest_url=exchange.rest_url,
            journal_directory=tmp_path / "journal",
            journal_max_bytes=ByteSize(1024**2),
            **names,  # type: ignore[arg-type]
        )
        before = await run_checks(settings)
        assert worst(before) is Severity.OK
        assert "will be created" in text_of(before, "topics")
        await ensure_topics(settings)
        after = await run_checks(settings)
    assert {each.subject for each in after} == {
        "Kafka", "topics", "spot lines", "linear lines", "API key", "REST", "clock", "journal main",
    }  # fmt: skip
    assert worst(after) is Severity.OK
    assert "as expected" in text_of(after, "topics")
    assert text_of(after, "Kafka").startswith("1 broker, ")
    assert entries(tmp_path) == []


async def test_symbols_that_are_not_trading_are_named(tmp_path: Path) -> None:
    """The stream runs without them, so they are warnings; a category without any symbol fails."""
    async with running_exchange(
        spot_symbols=("BTCUSDT", "SPOTUSDT"), linear_symbols=("BTCUSDT", "NEWUSDT")
    ) as exchange:
        exchange.set_status("linear", "NEWUSDT", "PreLaunch")
        settings = Settings(
            kafka_bootstrap_servers="127.0.0.1:1",
            bybit_public_ws_url=exchange.public_ws_url,
            bybit_rest_url=exchange.rest_url,
            bybit_spot_symbols=("NONEUSDT",),
            bybit_linear_symbols=("BTCUSDT", "NEWUSDT", "SPOTUSDT", "NONEUSDT"),
            journal_directory=tmp_path,
        )
        findings = [each for each in await run_checks(settings) if each.subject.endswith("symbols")]
    assert findings == [
        Finding(Severity.FAILED, "spot symbols", "Bybit does not list NONEUSDT: correct BYBIT_SPOT_SYMBOLS"),
        Finding(
            Severity.WARNING,
            "linear symbols",
            "NEWUSDT has the status PreLaunch, expected Trading: no data before it is listed",
        ),
        Finding(Severity.WARNING, "linear symbols", "Bybit does not list NONEUSDT: correct BYBIT_LINEAR_SYMBOLS"),
        Finding(
            Severity.WARNING,
            "linear symbols",
            "Bybit lists SPOTUSDT in spot, not in linear: correct BYBIT_LINEAR_SYMBOLS",
        ),
    ]


async def test_symbols_are_named_also_if_their_status_is_not_answered_in_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The list of trading symbols shows them; the status is requested for all at once, and only adds the reason."""
    requested = []

    async def answer_late(_: object, category: str, symbol: str) -> str | None:
        requested.append(symbol)
        await asyncio.Event().wait()
        return None

    monkeypatch.setattr(RestClient, "symbol_status", answer_late)
    async with running_exchange() as exchange:
        settings = Settings(
            kafka_bootstrap_servers="127.0.0.1:1",
            bybit_public_ws_url=exchange.public_ws_url,
            bybit_rest_url=exchange.rest_url,
            bybit_spot_symbols=(),
            bybit_linear_symbols=("BTCUSDT", *(f"NONE{number}USDT" for number in range(7))),
            journal_directory=tmp_path,
        )
        findings = [each for each in await run_checks(settings, timeout_s=1) if each.subject == "linear symbols"]
    assert requested == [f"NONE{number}USDT" for number in range(7)]
    text = "is not trading, and REST did not report its status: correct BYBIT_LINEAR_SYMBOLS"
    assert findings == [Finding(Severity.WARNING, "linear symbols", f"NONE{number}USDT {text}") for number in range(7)]


async def test_symbols_that_could_not_be_checked_are_a_warning(tmp_path: Path) -> None:
    """No finding at all would read as if all were trading."""
    settings = Settings(
        kafka_bootstrap_servers="127.0.0.1:1",
        bybit_public_ws_url="ws://127.0.0.1:1/v5/public",
        bybit_rest_url="http://127.0.0.1:1",
        journal_directory=tmp_path,
    )
    findings = await run_checks(settings, timeout_s=1)
    assert {"spot symbols", "linear symbols"} <= set(subjects(findings, Severity.WARNING))


async def test_missing_and_different_topics_are_reported(kafka: EmbeddedKafka, topic_prefix: str) -> None:
    """If topics may not be created, a missing one prevents the start."""
    names = {field: topic_prefix + field for field in TOPIC_FIELDS}
    settings = Settings(
        kafka_bootstrap_servers=kafka.bootstrap_servers,
        bybit_public_ws_url="ws://127.0.0.1:1",
        bybit_rest_url="http://127.0.0.1:1",
        kafka_create_topics=False,
        **names,  # type: ignore[arg-type]
    )
    findings = await run_checks(settings)
    assert "topics" in subjects(findings, Severity.FAILED)
    assert f"missing: {topic_prefix}" in text_of(findings, "topics")
    await ensure_topics(settings, create=True)
    findings = await run_checks(settings.model_copy(update={"kafka_topic_partitions": 7}))
    assert subjects(findings, Severity.WARNING).count("topics") > 3
    assert "6 partitions, expected 7" in next(each.text for each in findings if each.subject == "topics")


async def test_refused_connections_each_fail_with_advice(tmp_path: Path) -> None:
    """Each finding names the setting to correct, and the other checks still run."""
    settings = Settings(
        kafka_bootstrap_servers="127.0.0.1:1",
        bybit_public_ws_url="ws://127.0.0.1:1/v5/public",
        bybit_private_ws_url="ws://127.0.0.1:1/v5/private",
        bybit_rest_url="http://127.0.0.1:1",
        bybit_api_key=SecretStr("key-123456"),
        bybit_api_secret=SecretStr("secret-123456"),
        journal_directory=tmp_path,
    )
    findings = await run_checks(settings)
    failed = ["Kafka", "spot lines", "linear lines", "private lines", "API key", "REST"]
    assert subjects(findings, Severity.FAILED) == failed
    assert "KAFKA_BOOTSTRAP_SERVERS" in text_of(findings, "Kafka")
    assert "BYBIT_PUBLIC_WS_URL" in text_of(findings, "linear lines")
    assert "BYBIT_PRIVATE_WS_URL" in text_of(findings, "private lines")
    assert "BYBIT_REST_URL" in text_of(findings, "REST")
    assert worst(findings) is Severity.FAILED


async def test_lines_and_rest_are_checked_through_the_proxy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`check` goes the way that `run` goes, with either client, and names a proxy that fails."""
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    async with running_exchange() as exchange, socks_proxy() as proxy:
        for client in ("websockets", "pybit"):
            settings = Settings(
                bybit_websocket_client=client,
                kafka_bootstrap_servers="127.0.0.1:1",
                bybit_public_ws_url=exchange.public_ws_url.replace("127.0.0.1", "exchange.invalid"),
                bybit_rest_url=exchange.rest_url.replace("127.0.0.1", "exchange.invalid"),
                journal_directory=tmp_path,
            )
            monkeypatch.setenv("HTTP_PROXY", proxy.url)
            findings = await run_checks(settings)
            for subject in ("REST", "spot lines", "linear lines"):
                assert text_of(findings, subject).endswith(f"through the proxy 127.0.0.1:{proxy.port} (HTTP_PROXY)")
            monkeypatch.setenv("HTTP_PROXY", "socks5h://127.0.0.1:1")
            findings = await run_checks(settings)
            for subject in ("REST", "spot lines", "linear lines"):
                assert "the proxy 127.0.0.1:1 (HTTP_PROXY) cannot be reached" in text_of(findings, subject)
    assert len(proxy.targets) == 10  # for each client two lines, the clock, and the symbols of two categories


async def test_fault_of_one_check_is_a_finding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The others are shown all the same, and a group of errors is named by its cause."""

    async def fail(*_: object) -> None:
        raise ExceptionGroup("unhandled errors in a TaskGroup", [KeyError("cleanup.policy")])

    monkeypatch.setattr(check, "probe_clock", fail)
    settings = Settings(
        kafka_bootstrap_servers="127.0.0.1:1",
        bybit_public_ws_url="ws://127.0.0.1:1/v5/public",
        bybit_rest_url="http://127.0.0.1:1",
        journal_directory=tmp_path,
    )
    findings = await run_checks(settings)
    assert "KeyError: 'cleanup.policy'" in text_of(findings, "REST")
    assert "refuses connections" in text_of(findings, "spot lines")


async def test_silent_servers_do_not_block_the_check(tmp_path: Path) -> None:
    """A firewall or a frozen broker accepts and never answers; every check ends at its deadline all the same."""

    async def stay_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(stay_silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = Settings(
        kafka_bootstrap_servers=f"127.0.0.1:{port}",
        bybit_public_ws_url=f"ws://127.0.0.1:{port}",
        bybit_rest_url=f"http://127.0.0.1:{port}",
        journal_directory=tmp_path,
    )
    began = time.monotonic()
    findings = await run_checks(settings, timeout_s=0.5)
    assert time.monotonic() - began < 20
    assert subjects(findings, Severity.FAILED) == ["Kafka", "spot lines", "linear lines", "REST"]
    assert "within 0.5 s" in text_of(findings, "spot lines")
    assert "within 0.5 s" in text_of(findings, "REST")
    server.close()


async def test_unknown_names_in_the_environment_are_reported_first() -> None:
    """A misspelt setting explains many of the other findings."""
    settings = Settings(kafka_bootstrap_servers="127.0.0.1:1", bybit_rest_url="http://127.0.0.1:1")
    settings._warnings = ("BYBIT_LINE in the environment is no setting",)
    findings = await run_checks(settings, timeout_s=0.5)
    assert findings[0] == (Severity.WARNING, "settings", "BYBIT_LINE in the environment is no setting")


@pytest.fixture
async def refusing_url() -> AsyncIterator[str]:
    """Return the address of a REST host and of lines that refuse any key, with Bybit's texts."""

    async def refuse(request: web.Request) -> web.Response:
        answer = {"retCode": 10003, "retMsg": "API key is invalid.", "result": {}, "retExtInfo": {}, "time": 1}
        return web.json_response(answer)

    async def refuse_login(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            assert json.loads(message.data)["op"] == "auth"
            await socket.send_json({"success": False, "ret_msg": "API key is invalid.", "op": "auth"})
        return socket

    app = web.Application()
    app.add_routes([web.get("/v5/private", refuse_login), web.get("/{path:.*}", refuse)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_a_refused_key_is_reported_and_not_shown(refusing_url: str, tmp_path: Path) -> None:
    """A mainnet key on the testnet is the most common mistake."""
    settings = Settings(
        kafka_bootstrap_servers="127.0.0.1:1",
        bybit_public_ws_url=f"ws://{refusing_url}/v5/public",
        bybit_private_ws_url=f"ws://{refusing_url}/v5/private",
        bybit_rest_url=f"http://{refusing_url}",
        bybit_api_key=SecretStr("key-123456"),
        bybit_api_secret=SecretStr("secret-123456"),
        journal_directory=tmp_path,
    )
    findings = await run_checks(settings)
    for subject, reason in (("API key", "not valid here"), ("private lines", "API key is invalid")):
        assert subject in subjects(findings, Severity.FAILED)
        assert reason in text_of(findings, subject)
        assert "BYBIT_TESTNET" in text_of(findings, subject)
    assert "123456" not in str(findings)


@pytest.mark.parametrize(
    ("name", "severity", "text"),
    [
        ("read-only", Severity.OK, "read-only, expires in 85 days"),
        ("trading", Severity.FAILED, "may withdraw"),
    ],
)
async def test_a_key_is_requested_and_logs_in(tmp_path: Path, name: str, severity: Severity, text: str) -> None:
    """Both ways of a key are used: REST reports its permissions, the private lines accept its login."""
    async with running_exchange() as exchange:
        settings = Settings(
            kafka_bootstrap_servers="127.0.0.1:1",
            bybit_public_ws_url=exchange.public_ws_url,
            bybit_private_ws_url=exchange.private_ws_url,
            bybit_rest_url=exchange.rest_url,
            bybit_api_key=SecretStr(KEYS[name].api_key),
            bybit_api_secret=SecretStr(KEYS[name].api_secret),
            journal_directory=tmp_path,
        )
        findings = await run_checks(settings)
    assert "API key" in subjects(findings, severity)
    assert text in text_of(findings, "API key")
    assert text_of(findings, "private lines").startswith("logged in, pong after ")
    assert {"REST", "clock", "spot lines", "linear lines"} <= set(subjects(findings, Severity.OK))


@pytest.mark.parametrize(
    ("ahead_s", "severity", "text"),
    [
        (0.003, Severity.OK, "3 ms ahead of Bybit's, within 20 ms"),
        (-0.4, Severity.OK, "400 ms behind Bybit's"),
        (0.6, Severity.WARNING, "600 ms ahead"),
        (-0.6, Severity.WARNING, "600 ms behind"),
        (1.001, Severity.FAILED, "Bybit refuses signed requests"),
        (-4.9, Severity.WARNING, "NTP"),
        (-5.0, Severity.FAILED, "Bybit refuses signed requests"),
        (3600.0, Severity.FAILED, "3600 s ahead"),
    ],
)
def test_the_clock_is_judged_as_bybit_does(ahead_s: float, severity: Severity, text: str) -> None:
    """Bybit refuses 1 s ahead whatever the window, and 5 s behind with the usual window."""
    finding = clock_finding(ClockAnswer(0.04, ahead_s))
    assert finding.severity is severity
    assert text in finding.text


@pytest.mark.parametrize(
    ("may_trade", "expires", "is_allowed", "severity", "texts"),
    [
        (False, None, False, Severity.OK, ["read-only, does not expire"]),
        (False, "2026-06-13T06:00:00Z", False, Severity.OK, ["read-only, expires in 60 days"]),
        (False, "2026-04-20T00:00:00Z", False, Severity.WARNING, ["expires in 6 days"]),
        (False, "2026-04-13T00:00:00Z", False, Severity.FAILED, ["has expired"]),
        (True, None, False, Severity.FAILED, ["this API key may trade"]),
        (True, None, True, Severity.WARNING, ["as BYBIT_ALLOW_TRADING_KEY allows"]),
        (True, "2026-04-17T00:00:00Z", True, Severity.WARNING, ["as BYBIT_ALLOW_TRADING_KEY", "expires in 3 days"]),
    ],
)
def test_a_key_is_judged_as_a_start_does(
    may_trade: bool, expires: str | None, is_allowed: bool, severity: Severity, texts: list[str]
) -> None:
    """The start would be refused, or the account would stop in a few days."""
    permissions: dict[str, list[str] | None] = {"Spot": ["SpotTrade"], "ContractTrade": ["Order", "Position"]}
    information = KeyInformation(int(not may_trade), permissions, [] if expires else ["18.181.170.164"], expires or "")
    findings = key_findings(judge_key(information, now_ms=NOW_MS, may_trade=is_allowed), now_ms=NOW_MS)
    assert [each.severity for each in findings] == [severity] * len(texts)
    assert all(text in each.text for text, each in zip(texts, findings, strict=True))


@pytest.mark.parametrize(("is_allowed", "severity"), [(False, Severity.FAILED), (True, Severity.WARNING)])
def test_a_key_of_demo_trading_is_judged_as_a_start_does(is_allowed: bool, severity: Severity) -> None:
    """Bybit does not describe such a key, so whether it may trade is not known."""
    (finding,) = key_findings(judge_undescribed_key(may_trade=is_allowed), now_ms=NOW_MS)
    assert finding.severity is severity
    assert "demo trading" in finding.text


def test_a_journal_in_use_names_its_process(tmp_path: Path) -> None:
    """A second stream on the same journal would be refused, so `check` names the owner."""
    settings = Settings(journal_directory=tmp_path)
    shard = settings.shard("main")
    shard.journal_directory.mkdir()
    lock = JournalLock(shard.journal_directory / "journal.lock")
    (finding,) = journal_findings(settings, shard)
    assert finding.severity is Severity.WARNING
    assert f"owned by process {os.getpid()}" in finding.text
    lock.release()
    (finding,) = journal_findings(settings, shard)
    assert finding.severity is Severity.OK
    JournalLock(shard.journal_directory / "journal.lock").release()


@pytest.mark.parametrize("folder", [lambda path: path / "file" / "journal", lambda path: path / ("j" * 300)])
def test_a_journal_that_cannot_be_written_fails(tmp_path: Path, folder: Callable[[Path], Path]) -> None:
    """Nothing is received without a journal."""
    (tmp_path / "file").write_text("")
    settings = Settings(journal_directory=folder(tmp_path))
    (finding,) = journal_findings(settings, settings.shard("main"))
    assert finding.severity is Severity.FAILED
    assert "JOURNAL_DIRECTORY" in finding.text


def test_a_disk_smaller_than_the_bound_is_reported(tmp_path: Path) -> None:
    """The disk would be full before the journal reaches its bound."""
    settings = Settings(journal_directory=tmp_path, journal_max_bytes=ByteSize(2**60))
    (finding,) = journal_findings(settings, settings.shard("main"))
    assert finding.severity is Severity.WARNING
    assert "JOURNAL_MAX_BYTES" in finding.text
