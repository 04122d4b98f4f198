"""The job `backfill`: one hour per partition, from the launchpad, the shell and the pages."""

import asyncio
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from hedgelock_ingest.defs.backfill import assets, jobs
from hedgelock_ingest.defs.backfill.assets import CHECK_NAME
from hedgelock_ingest.defs.backfill.jobs import JOB_NAME
from hedgelock_ingest.defs.known_settings import KnownSettings
from hedgelock_ingest.defs.resources import BybitResource, IngestResource, KafkaResource
from hedgelock_ingest.defs.topics.assets import BACKFILLED, topic_key
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest.settings import Settings
from hedgelock_ingest_tests.account.account_stage import account_settings
from hedgelock_ingest_tests.backfill.past_hour import an_hour_ago, clock_at, environment, fill, trade
from hedgelock_ingest_tests.defs.dagster_shell import DagsterShell
from hedgelock_ingest_tests.kafka.read_topic import read_topic
from hedgelock_ingest_tests.processes.stage import eventually
from hedgelock_ingest_tests.sandbox.exchange_fixtures import running_exchange

MINUTE = timedelta(minutes=1)
_TOPICS = {Topic.MARKET_TRADES: "trade_id", Topic.EXECUTIONS: "exec_id"}
_AT_WORK = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED)
_LAUNCH = """
mutation ($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""


def name_of(hour: datetime) -> str:
    return f"{hour:%Y-%m-%d-%H:%M}"


async def ran(
    settings: Settings, instance: dg.DagsterInstance, hour: datetime | None, patch: pytest.MonkeyPatch
) -> dg.ExecuteInProcessResult:
    """Run the job in a thread, since it starts its own event loop."""
    for name, value in environment(settings).items():
        patch.setenv(name, value)
    ingest = IngestResource(bybit=BybitResource(), kafka=KafkaResource())
    definitions = dg.Definitions(
        assets=[assets.asset(KnownSettings(settings))], jobs=[jobs.job], resources={"ingest": ingest}
    )
    return await asyncio.to_thread(
        definitions.resolve_job_def(JOB_NAME).execute_in_process,
        instance=instance,
        partition_key=None if hour is None else name_of(hour),
    )


def figures(result: dg.ExecuteInProcessResult, key: dg.AssetKey) -> list[Mapping[str, Any]]:
    events = [each for each in result.get_asset_materialization_events() if each.asset_key == key]
    found = [event.step_materialization_data.materialization.metadata for event in events]
    return [{name: value.value for name, value in metadata.items()} for metadata in found]


async def in_kafka(settings: Settings) -> list[str]:
    """Return the ids of all trades and executions, with duplicates."""
    found = []
    for topic, field in _TOPICS.items():
        records = await read_topic(settings.kafka_bootstrap_servers, settings.topic(topic.value))
        found += [json.loads(record.value or b"")[field] for record in records]
    return sorted(found)


@pytest.fixture(autouse=True)
def _only_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "collector.yaml").write_text("bybit_testnet: true\n")
    monkeypatch.setenv("HEDGELOCK_CONFIG", str(tmp_path / "collector.yaml"))


async def test_hour_is_reported_in_figures_and_on_its_topics(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run publishes records; the second finds them known, and materialises no topic."""
    begin = an_hour_ago()
    async with running_exchange(rate=0) as exchange:
        settings = account_settings(exchange, kafka, topic_prefix, tmp_path)
        with clock_at(exchange, begin - MINUTE):
            trade(exchange, 1)
        with clock_at(exchange, begin + MINUTE):
            ids = sorted([*trade(exchange, 10), *fill(exchange, 2)])
        with dg.DagsterInstance.ephemeral() as instance:
            first = await ran(settings, instance, begin, monkeypatch)
            again = await ran(settings, instance, begin, monkeypatch)
            assert instance.get_materialized_partitions(BACKFILLED) == {name_of(begin)}
    assert await in_kafka(settings) == ids
    (reported,), (repeated,) = figures(first, BACKFILLED), figures(again, BACKFILLED)
    assert [reported[name] for name in ("in the hour", "already in Kafka", "published")] == [len(ids), 0, len(ids)]
    assert [repeated[name] for name in ("in the hour", "already in Kafka", "published")] == [len(ids), len(ids), 0]
    assert [each["backfill: published"] for each in figures(first, topic_key(Topic.EXECUTIONS))] == [2]
    assert [each["backfill: published"] for each in figures(first, topic_key(Topic.MARKET_TRADES))] == [len(ids) - 2]
    assert figures(again, topic_key(Topic.EXECUTIONS)) == figures(again, topic_key(Topic.MARKET_TRADES)) == []
    (check,) = first.get_asset_check_evaluations()
    assert (check.check_name, check.passed) == (CHECK_NAME, True)


async def test_incomplete_hour_warns(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Executions are complete, trades are out of reach: the run succeeds, and the check names the shortfall."""
    begin = an_hour_ago()
    async with running_exchange(rate=0) as exchange:
        settings = account_settings(exchange, kafka, topic_prefix, tmp_path)
        with clock_at(exchange, begin + MINUTE):
            ids = sorted(fill(exchange, 2))
        trade(exchange, 5)
        with dg.DagsterInstance.ephemeral() as instance:
            result = await ran(settings, instance, begin, monkeypatch)
    assert await in_kafka(settings) == ids
    (check,) = result.get_asset_check_evaluations()
    assert not check.passed
    assert check.severity is dg.AssetCheckSeverity.WARN
    assert "Bybit returned rows only from" in (check.description or "")


async def test_hour_out_of_reach_fails_with_the_reason(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour without any data fails; a retry would not help."""
    async with running_exchange(rate=0) as exchange:
        settings = account_settings(exchange, kafka, topic_prefix, tmp_path, key=None)
        trade(exchange, 5)
        with (
            dg.DagsterInstance.ephemeral() as instance,
            pytest.raises(dg.Failure, match=r"OutOfReach.*there is no key.*only from") as raised,
        ):
            await ran(settings, instance, an_hour_ago(), monkeypatch)
    assert raised.value.allow_retries is False


async def test_without_an_hour_the_last_one_is_taken(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plain `dagster job launch -j backfill` takes the last past hour, and reports which one."""
    before = an_hour_ago() + timedelta(hours=1)
    async with running_exchange(rate=0) as exchange:
        settings = account_settings(exchange, kafka, topic_prefix, tmp_path)
        with dg.DagsterInstance.ephemeral() as instance:
            result = await ran(settings, instance, None, monkeypatch)
            hours = instance.get_materialized_partitions(BACKFILLED)
    assert hours
    assert hours < {name_of(before), name_of(before + timedelta(hours=1))}
    assert {each["hour"] for each in figures(result, BACKFILLED)} == hours


def test_partitions_are_past_hours_from_the_setting_on(tmp_path: Path) -> None:
    """The present hour is not among them."""
    settings = Settings(bybit_backfill_since=an_hour_ago().date() - timedelta(days=1))
    partitions = assets.asset(KnownSettings(settings)).partitions_def
    assert partitions is not None
    now = an_hour_ago() + timedelta(hours=2, minutes=30)
    keys = partitions.get_partition_keys(current_time=now)
    assert keys[0] == f"{settings.bybit_backfill_since}-00:00"
    assert keys[-1] == name_of(now - timedelta(minutes=90))


@pytest.mark.proof
@pytest.mark.timeout(400)
async def test_hours_are_launched_from_the_shell_and_from_the_pages(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """Each way queues one run per hour, one runs at a time, and nothing is published twice."""
    begin = an_hour_ago()
    async with running_exchange(rate=0) as exchange:
        settings = account_settings(exchange, kafka, topic_prefix, tmp_path / "journal", key=None)
        with clock_at(exchange, begin + MINUTE):
            ids = sorted(trade(exchange, 10))
        shell = DagsterShell(tmp_path, environment(settings))
        shell.prepare()
        shell.start()
        try:
            tags = json.dumps({"dagster/partition": name_of(begin)}, separators=(",", ":"))
            await shell.dagster(f"job launch -w workspace.yaml -j {JOB_NAME} --tags {tags}")
            await _over(shell, 1)
            assert await in_kafka(settings) == ids
            await shell.dagster(f"job backfill -j {JOB_NAME} --partitions {name_of(begin)} --noprompt")
            hours = [name_of(begin), name_of(begin + timedelta(hours=1))]
            chosen = {"assetSelection": [{"path": BACKFILLED.path}], "partitionNames": hours}
            answer = await shell.graphql(_LAUNCH, {"params": chosen})
            assert answer["launchPartitionBackfill"]["__typename"] == "LaunchBackfillSuccess", answer
            await _over(shell, 4)
            with shell.instance() as instance:
                assert instance.get_materialized_partitions(BACKFILLED) == set(hours)
        finally:
            await asyncio.to_thread(shell.end)
    assert await in_kafka(settings) == ids


async def _over(shell: DagsterShell, count: int) -> None:
    """Wait until so many runs of the job have succeeded; at most one may be active at a time."""

    def check_runs() -> bool:
        with shell.instance() as instance:
            runs = instance.get_runs()
        ours = [run for run in runs if run.job_name == JOB_NAME or BACKFILLED in (run.asset_selection or ())]
        statuses = [run.status for run in ours]
        assert dg.DagsterRunStatus.FAILURE not in statuses, shell.log(80)
        assert sum(status in _AT_WORK for status in statuses) <= 1
        return statuses.count(dg.DagsterRunStatus.SUCCESS) == count

    async def is_over() -> bool:
        await asyncio.sleep(0.5)
        return await asyncio.to_thread(check_runs)

    await eventually(f"{count} backfills are over", is_over, timeout_s=150)
