"""Dagster's commands, run at the root of the clone as in a shell."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import dagster as dg
import pytest

from hedgelock_ingest.defs.topics.assets import topic_key
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.defs.dagster_shell import DagsterShell, account_at
from hedgelock_ingest_tests.kafka.read_topic import read_topic
from hedgelock_ingest_tests.processes.stage import eventually
from hedgelock_ingest_tests.sandbox.exchange_fixtures import ExchangeProcess, exchange_process

NO_KEY = "no BYBIT_API_KEY: only public feeds run, account topics stay empty"
MODULE = "-m hedgelock_ingest.definitions"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        pytest.param({}, NO_KEY, id="nothing-set", marks=pytest.mark.proof),
        pytest.param(
            {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}, NO_KEY, id="kafka-away-and-no-key", marks=pytest.mark.proof
        ),
        pytest.param({"BYBIT_LINES": "3", "STREAM_SHARDS": "?"}, "BYBIT_LINES (environment): found", id="wrong"),
    ],
)
async def test_location_loads_and_reports_what_is_missing(
    settings: Mapping[str, str], expected: str, tmp_path: Path
) -> None:
    """The location loads with any problem, and the output states what to do."""
    shell = _shell(tmp_path, settings)
    output = await shell.dagster("definitions validate")
    assert "All code locations passed validation" in output
    assert expected in output


@pytest.mark.proof
async def test_schedules_and_sensors_are_listed_stopped_started_and_previewed(tmp_path: Path) -> None:
    """The shell can switch them; with a key the polls run from the start."""
    shell = _shell(tmp_path, {"BYBIT_API_KEY": "key", "BYBIT_API_SECRET": "secret"})
    listed = await shell.dagster("schedule list")
    for name in ("poll_every_minute", "check_every_ten_minutes", "forget_every_hour"):
        assert f"Schedule: {name} [RUNNING]" in listed
    assert "+ poll_every_minute" in await shell.dagster("schedule preview")
    assert "Stopped schedule poll_every_minute" in await shell.dagster("schedule stop poll_every_minute")
    assert "Schedule: poll_every_minute [STOPPED]" in await shell.dagster("schedule list")
    assert "Started schedule poll_every_minute" in await shell.dagster("schedule start poll_every_minute")

    assert "run requests for 1 run(s)" in await shell.dagster("sensor preview keep_streaming")
    assert "Stopped sensor keep_streaming" in await shell.dagster("sensor stop keep_streaming")
    assert "Sensor: keep_streaming [STOPPED]" in await shell.dagster("sensor list")
    assert "Started sensor keep_streaming" in await shell.dagster("sensor start keep_streaming")


@pytest.mark.proof
async def test_asset_is_materialized_from_the_shell(kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path) -> None:
    """One poll by hand needs no daemon, and reports what is missing: here the key, then Kafka."""
    command = f"asset materialize --select loans {MODULE}"
    async with exchange_process(rate=0) as exchange:
        settings = account_at(exchange, kafka, topic_prefix)
        shell = _shell(tmp_path, settings)
        await shell.dagster(command)
        records = await read_topic(kafka.bootstrap_servers, topic_prefix + Topic.ACCOUNT_RAW.value)
        assert [json.loads(record.value or b"")["origin"] for record in records] == ["rest:loans"]

        no_key = {name: value for name, value in settings.items() if not name.startswith("BYBIT_API")}
        output = await _shell(tmp_path, no_key).dagster(command, expect=1)
        assert "set BYBIT_API_KEY and BYBIT_API_SECRET" in output
        no_kafka = {**settings, "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
        output = await _shell(tmp_path, no_kafka).dagster(f"asset materialize --select audit {MODULE}", expect=1)
        assert "KafkaUnavailable: no usable answer from Kafka at 127.0.0.1:1" in output
        assert "start it, or correct KAFKA_BOOTSTRAP_SERVERS" in output


@pytest.mark.proof
async def test_jobs_are_launched_from_the_shell(kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path) -> None:
    """Each plain `job launch` runs its job; the sensor adopts a stream that was started by hand."""
    async with _with_daemon(kafka, topic_prefix, tmp_path) as (exchange, shell):
        await shell.dagster("job launch -j stream")
        first = await shell.worker()
        await shell.until_stats("frames", lambda found: found["frames_acknowledged"] > 100)
        await exchange.fault("inject", kind="invalid_json", category="linear", channel="publicTrade.BTCUSDT", nth=0)
        await shell.until_stats("the dead letter", lambda found: found["dead_letters"] == 1)

        await asyncio.gather(
            shell.dagster("job launch -j poll_account"),
            shell.dagster("job launch -w workspace.yaml -j replay_dead_letters"),
        )
        await _succeeded(shell, "poll_account")
        await _succeeded(shell, "replay_dead_letters")
        raw = await read_topic(kafka.bootstrap_servers, topic_prefix + Topic.ACCOUNT_RAW.value)
        origins = {json.loads(record.value or b"")["origin"] for record in raw}
        assert origins >= {"rest:collateral", "rest:loans", "rest:wallet"}
        assert await read_topic(kafka.bootstrap_servers, topic_prefix + Topic.MARKET_TRADES.value)
        assert _letters_tried(shell) == 1

        await shell.dagster("sensor start keep_streaming")
        await eventually("a tick of the sensor", lambda: _has_ticked(shell), timeout_s=60)
        assert [record.dagster_run.run_id for record in shell.runs()] == [first.run_id]


def _shell(folder: Path, settings: Mapping[str, str]) -> DagsterShell:
    shell = DagsterShell(folder, settings)
    shell.prepare()
    return shell


@asynccontextmanager
async def _with_daemon(
    kafka: EmbeddedKafka, prefix: str, folder: Path
) -> AsyncIterator[tuple[ExchangeProcess, DagsterShell]]:
    async with exchange_process(rate=200) as exchange:
        shell = _shell(folder, account_at(exchange, kafka, prefix))
        await shell.dagster("sensor stop keep_streaming")
        await shell.dagster("schedule stop poll_every_minute")
        shell.start()
        try:
            yield exchange, shell
        finally:
            await asyncio.to_thread(shell.end)


async def _succeeded(shell: DagsterShell, job: str) -> None:
    async def is_over() -> bool:
        return all(run.is_finished for run in await asyncio.to_thread(_runs_of, shell, job))

    await eventually(f"{job} is over", is_over, timeout_s=60)
    assert [run.status for run in _runs_of(shell, job)] == [dg.DagsterRunStatus.SUCCESS], shell.log(80)


def _runs_of(shell: DagsterShell, job: str) -> list[dg.DagsterRun]:
    with shell.instance() as instance:
        return list(instance.get_runs(dg.RunsFilter(job_name=job)))


def _letters_tried(shell: DagsterShell) -> object:
    with shell.instance() as instance:
        [found] = instance.fetch_observations(topic_key(Topic.INGEST_DEAD_LETTERS), limit=10).records
    assert found.asset_observation is not None
    return found.asset_observation.metadata["dead letters replayed"].value


async def _has_ticked(shell: DagsterShell) -> bool:
    await asyncio.sleep(1)
    return "Sensor keep_streaming skipped: main: run" in shell.log(10_000)
