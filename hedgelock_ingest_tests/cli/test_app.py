"""The command line for users and supervisors: texts, exit codes, reaction to Ctrl-C."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from hedgelock_ingest.audit.replay import replay
from hedgelock_ingest.cli import app
from hedgelock_ingest.errors import IngestError, JournalDamaged, KeyRefused, SettingsInvalid
from hedgelock_ingest.journal.files import JournalFiles
from hedgelock_ingest.journal.lock import JournalLock
from hedgelock_ingest.kafka.topic_admin import ensure_topics
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest.settings import TOPIC_FIELDS, Settings

COMMANDS = ("run", "demo", "check", "tail", "replay", "topics", "sandbox")
UNREACHABLE = {
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    "BYBIT_PUBLIC_WS_URL": "ws://127.0.0.1:1",
    "BYBIT_REST_URL": "http://127.0.0.1:1",
}


def environment(folder: Path, **settings: str) -> dict[str, str]:
    """Return an environment in which only the given settings are set."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BYBIT_", "KAFKA_"))}
    return {**kept, "JOURNAL_DIRECTORY": str(folder), **settings}


def command(tmp_path: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run `hedgelock-ingest` to its end, in a folder without a settings file."""
    return subprocess.run(
        [sys.executable, "-m", "hedgelock_ingest", *arguments],
        env=environment(tmp_path, **settings),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@asynccontextmanager
async def started(folder: Path, *arguments: str, **settings: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `hedgelock-ingest` beside the test; it is killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "hedgelock_ingest",
        *arguments,
        env=environment(folder, **settings),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def line_of(process: asyncio.subprocess.Process) -> str:
    """Return the next line of its output."""
    assert process.stdout is not None
    async with asyncio.timeout(60):
        return (await process.stdout.readline()).decode().rstrip("\n")


async def interrupted(process: asyncio.subprocess.Process) -> tuple[int | None, str]:
    """Send Ctrl-C and return the exit code and stderr."""
    assert process.stderr is not None
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(60):
        errors = (await process.stderr.read()).decode()
        return await process.wait(), errors


def test_help_explains_commands_settings_and_exit_codes(tmp_path: Path) -> None:
    """A new user reads it first: how to start, and what exit codes mean."""
    helped = command(tmp_path, "--help")
    assert helped.returncode == 0
    for expected in (*COMMANDS, "HEDGELOCK_CONFIG", "config/collector.yaml", "docs/settings.md", "Exit codes:"):
        assert expected in helped.stdout
    assert not [line for line in helped.stdout.splitlines() if line.endswith("...") and "Usage" not in line]


@pytest.mark.parametrize("name", [*COMMANDS, "sandbox exchange", "sandbox kafka"])
def test_each_command_explains_itself(tmp_path: Path, name: str) -> None:
    """Help works without any setting, network or broker."""
    helped = command(tmp_path, *name.split(), "--help", BYBIT_LINES="wrong")
    assert helped.returncode == 0
    assert f"Usage: python -m hedgelock_ingest {name}" in helped.stdout


def test_help_loads_nothing_heavy() -> None:
    """Help answers at once since each command imports for itself."""
    heavy = ["pydantic", "aiokafka", "pybit", "websockets", "structlog", "rich", "dagster", "pandas", "fastapi"]
    code = f"import sys, hedgelock_ingest.cli.app; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("name", ["run", "check", "tail market-data", "topics", "replay ."])
def test_wrong_settings_are_named_with_exit_code_2(tmp_path: Path, name: str) -> None:
    """The code shows a supervisor that a restart does not help; the text shows a user what to correct."""
    ended = command(tmp_path, *name.split(), BYBIT_LINES="3", BYBIT_API_SECRET="s3cr3t-value", STOP_TIMEOUT="x")
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert [line.split()[0] for line in ended.stderr.splitlines()] == [
        "wrong", "BYBIT_LINES", "STOP_TIMEOUT", "BYBIT_API_SECRET",
    ]  # fmt: skip
    assert "s3cr3t-value" not in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (["run"], {"STREAM_SHARDS": "a,b", "BYBIT_PUBLIC_FEEDS": "tickers"}, "so each record would come twice"),
        (["run", "--shard", "other"], {}, 'no shard "other" in STREAM_SHARDS; known: main'),
        (["nonsense"], {}, "No such command 'nonsense'"),
        (["tail"], {}, "Missing argument"),
    ],
)
def test_wrong_arguments_end_with_exit_code_2(
    tmp_path: Path, arguments: list[str], settings: dict[str, str], message: str
) -> None:
    """Such a command cannot be intended."""
    ended = command(tmp_path, *arguments, **settings)
    assert ended.returncode == 2
    assert message in ended.stderr


def test_several_shards_require_a_choice(tmp_path: Path) -> None:
    """One process runs one shard, so the command must name it."""
    (tmp_path / "two.yaml").write_text(
        "STREAM_SHARDS: [a, b]\nshards: {a: {BYBIT_SPOT_SYMBOLS: []}, b: {BYBIT_LINEAR_SYMBOLS: []}}"
    )
    ended = command(tmp_path, "run", HEDGELOCK_CONFIG="two.yaml")
    assert ended.returncode == 2
    assert "choose one with --shard: a, b" in ended.stderr


def test_any_other_failure_is_one_line(tmp_path: Path) -> None:
    """An operator needs one line with the action, not a traceback; DEBUG adds the traceback."""
    ended = command(tmp_path, "tail", "market-data", **UNREACHABLE)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: no usable answer from Kafka: 127.0.0.1:1 refuses connections")
    assert ended.stderr.count("\n") == 1
    ended = command(tmp_path, "tail", "market-data", MONITORING_LOG_LEVEL="DEBUG", **UNREACHABLE)
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (SettingsInvalid(["BYBIT_LINES: found 3"]), 2, "wrong settings:\n  BYBIT_LINES: found 3\n"),
        (KeyRefused("the key may trade"), 3, "error: the key may trade\n"),
        (IngestError("first\nsecond"), 1, "error: first second\n"),
        (ZeroDivisionError("with t0p-s3cret inside"), 1, "error: ZeroDivisionError: with <hidden> inside\n"),
        (ExceptionGroup("a", [ExceptionGroup("b", [KeyError("k"), OSError("o")])]), 1, "error: KeyError: 'k'\n"),
        (ExceptionGroup("a", [KeyError("k"), IngestError("gone")]), 1, "error: IngestError: gone\n"),
        (SystemExit(130), 1, ""),
        (SystemExit(0), 0, ""),
    ],
)
def test_exit_codes_follow_the_error(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    error: BaseException,
    code: int,
    message: str,
) -> None:
    """0 clean, 2 settings, 3 key, 1 anything else; never a secret."""

    def fail() -> None:
        raise error

    monkeypatch.setattr(app, "app", fail)
    monkeypatch.setenv("BYBIT_API_KEY", "k3y-123456")
    monkeypatch.setenv("BYBIT_API_SECRET", "t0p-s3cret")
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == code
    assert capsys.readouterr().err == message


def test_check_shows_settings_and_fails_without_answers(tmp_path: Path) -> None:
    """Every setting is shown with its origin; a failed check is exit code 1."""
    ended = command(tmp_path, "check", BYBIT_API_KEY="key-123456", BYBIT_API_SECRET="secret-123456", **UNREACHABLE)
    assert ended.returncode == 1
    lines = {line.split()[0]: line.split()[1:] for line in ended.stdout.splitlines() if line.strip()}
    assert lines["BYBIT_API_SECRET"] == ["<hidden>", "environment"]
    assert lines["BYBIT_LINES"] == ["2", "default"]
    assert "failed   Kafka" in ended.stdout
    assert "ok       journal main" in ended.stdout
    assert "123456" not in ended.stdout + ended.stderr
    assert ended.stderr == ""


@pytest.fixture
async def topics(kafka: EmbeddedKafka, topic_prefix: str) -> dict[str, str]:
    """Return settings for separate topics, created, the one for market data with three records."""
    names = {field: topic_prefix + field for field in TOPIC_FIELDS}
    settings = Settings(kafka_bootstrap_servers=kafka.bootstrap_servers, **names)  # type: ignore[arg-type]
    await ensure_topics(settings)
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers) as producer:
        for number in range(3):
            await producer.send_and_wait(
                settings.kafka_topic_market_data,
                f'{{"number": {number}}}'.encode(),
                key=b"linear:BTCUSDT",
                timestamp_ms=1_700_000_000_000 + number,
            )
    environ = {name.upper(): value for name, value in names.items()}
    return {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, **environ}


async def test_tail_shows_time_place_key_and_value(tmp_path: Path, topics: dict[str, str]) -> None:
    """A user sees the location of each record; `--json` prints only the values, for programs."""
    ended = await asyncio.to_thread(command, tmp_path, "tail", "market-data", "-n", "2", **topics)
    assert ended.returncode == 0
    when, place, key, *value = ended.stdout.splitlines()[-1].split()
    assert when == "2023-11-14T22:13:20.002Z"
    assert place.endswith("/2")
    assert (key, value) == ("linear:BTCUSDT", ['{"number":', "2}"])
    ended = await asyncio.to_thread(command, tmp_path, "tail", "market-data", "--json", **topics)
    assert [json.loads(line) for line in ended.stdout.splitlines()] == [{"number": number} for number in range(3)]
    assert ended.stderr == ""


async def test_tail_of_an_empty_topic_reports_it_on_stderr(tmp_path: Path, topics: dict[str, str]) -> None:
    """Silence would look like a fault; stdout still contains records only."""
    ended = await asyncio.to_thread(command, tmp_path, "tail", "market-trades", **topics)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "no records yet\n")
    ended = await asyncio.to_thread(command, tmp_path, "tail", "market-data", "--key", "spot:BTCUSDT", **topics)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "no such records yet\n")
    async with started(tmp_path, "tail", "market-trades", "-f", **topics) as process:
        assert process.stderr is not None
        assert await asyncio.wait_for(process.stderr.readline(), 60) == b"no records yet\n"
        assert await interrupted(process) == (0, "")


async def test_tail_follows_until_ctrl_c(tmp_path: Path, topics: dict[str, str]) -> None:
    """New records are printed at once, and Ctrl-C is the normal end: exit code 0, no traceback."""
    async with started(tmp_path, "tail", "market-data", "-f", "-n", "1", "--json", **topics) as process:
        assert await line_of(process) == '{"number": 2}'
        async with AIOKafkaProducer(bootstrap_servers=topics["KAFKA_BOOTSTRAP_SERVERS"]) as producer:
            await producer.send_and_wait(topics["KAFKA_TOPIC_MARKET_DATA"], b"new")
        assert await line_of(process) == "new"
        assert await interrupted(process) == (0, "")


async def test_tail_ends_quietly_when_its_reader_does(tmp_path: Path, topics: dict[str, str]) -> None:
    """`tail … | head -1` is the usual way to view one record."""
    async with AIOKafkaProducer(bootstrap_servers=topics["KAFKA_BOOTSTRAP_SERVERS"], linger_ms=5) as producer:
        for _ in range(300):
            await producer.send(topics["KAFKA_TOPIC_MARKET_DATA"], b"x" * 1000)
    shell = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        f"set -o pipefail; {sys.executable} -m hedgelock_ingest tail market-data -n 300 | head -1 > /dev/null",
        env=environment(tmp_path, **topics),
        cwd=tmp_path,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await shell.communicate()
    assert (shell.returncode, errors) == (0, b"")


async def test_tail_of_a_missing_topic_lists_the_existing_ones(tmp_path: Path, topics: dict[str, str]) -> None:
    """A misspelt name can be corrected without another tool."""
    ended = await asyncio.to_thread(command, tmp_path, "tail", "market-dota", **topics)
    assert ended.returncode == 1
    assert 'no topic "market-dota" in Kafka; existing topics: ' in ended.stderr
    assert topics["KAFKA_TOPIC_MARKET_DATA"] in ended.stderr


@pytest.mark.parametrize("name", ["tail market-data", "gaps", "gaps --json", "dead-letters list"])
def test_topic_that_does_not_exist_yet_is_reported_with_the_command_that_creates_it(
    kafka: EmbeddedKafka,
    topic_prefix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    name: str,
) -> None:
    """Before the first run nothing is wrong, but "no gap" would be a claim about data that nobody looked at."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["hedgelock-ingest", *name.split()])
    for field in TOPIC_FIELDS:
        monkeypatch.setenv(field.upper(), topic_prefix + field)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka.bootstrap_servers)
    for create, ways in (("true", '"hedgelock-ingest run" or "hedgelock-ingest topics"'), ("false", "topics --create")):
        monkeypatch.setenv("KAFKA_CREATE_TOPICS", create)
        with pytest.raises(SystemExit) as ended:
            app.main()
        output = capsys.readouterr()
        assert (ended.value.code, output.out) == (1, "")
        assert output.err.startswith(f'error: no topic "{topic_prefix}')
        assert ways in output.err


async def test_replay_of_an_unknown_dead_letter_is_an_error(tmp_path: Path, topics: dict[str, str]) -> None:
    """Zero letters with exit code 0 would look done."""
    ended = await asyncio.to_thread(command, tmp_path, "dead-letters", "replay", "--id", "nope", **topics)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("error: no dead letter nope; ")


def test_second_run_of_a_shard_names_the_process_that_runs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its port is taken as well, but another port would not help."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["hedgelock-ingest", "run"])
    (tmp_path / ".hedgelock/journal/main").mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("MONITORING_PORT", str(taken.getsockname()[1]))
        lock = JournalLock(JournalFiles(Path(".hedgelock/journal/main")).lock)
        with pytest.raises(SystemExit) as ended:
            app.main()
        lock.release()
    assert ended.value.code == 1
    assert f"journal .hedgelock/journal/main is owned by process {os.getpid()}" in capsys.readouterr().err


def test_replay_of_no_journal_names_the_setting_and_when_there_is_one(tmp_path: Path) -> None:
    """The path that was given must not come back as the advice."""
    with pytest.raises(JournalDamaged) as refused:
        replay(tmp_path / "main", to="-", settings=Settings(journal_directory=tmp_path))
    assert str(refused.value) == (
        f"no journal at {tmp_path}/main; expected the folder of one, which the first run creates in JOURNAL_DIRECTORY: "
        f"{tmp_path}/main (none yet)"
    )


def test_topics_are_shown_and_created(kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path) -> None:
    """Without `--create` nothing is changed, and a missing topic is exit code 1."""
    settings = {field.upper(): topic_prefix + field for field in TOPIC_FIELDS}
    settings["KAFKA_BOOTSTRAP_SERVERS"] = kafka.bootstrap_servers
    for arguments, code, state in (
        (["--no-create"], 1, "missing"),
        ([], 0, "created"),
        (["--no-create"], 0, "as expected"),
    ):
        ended = command(tmp_path, "topics", *arguments, **settings)
        assert ended.returncode == code
        (row,) = [line for line in ended.stdout.splitlines() if "kafka_topic_market_data" in line]
        assert row.rstrip().endswith(state)


@pytest.mark.parametrize("name", ["exchange", "kafka"])
async def test_a_sandbox_prints_its_addresses_and_stops_at_ctrl_c(tmp_path: Path, name: str) -> None:
    """Scripts read its addresses from the first line of its output."""
    async with started(tmp_path, "sandbox", name) as process:
        addresses = json.loads(await line_of(process))
        assert {"exchange": "rest_url", "kafka": "bootstrap_servers"}[name] in addresses
        assert await interrupted(process) == (0, "")
