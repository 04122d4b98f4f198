"""The scheduled assets poll a simulated exchange, publish to Kafka, and report their results."""

import asyncio
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from hedgelock_ingest.bybit.rest_port import RestTiming
from hedgelock_ingest.defs import assembly
from hedgelock_ingest.defs.polls import assets, jobs
from hedgelock_ingest.defs.polls.assets import poll_account
from hedgelock_ingest.defs.polls.checks import STREAM_AGREES
from hedgelock_ingest.defs.polls.slots import LEAD_MS, WINDOW_MS
from hedgelock_ingest.defs.polls.window import POLLED_PARTS
from hedgelock_ingest.defs.resources import BybitResource, IngestResource, KafkaResource
from hedgelock_ingest.defs.topics.assets import polled_key
from hedgelock_ingest.sandbox.exchange.keys import KEYS
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.defs.polls.polling_runs import (
    an_ingest,
    figures,
    materialized,
    tick_that_ends_in,
    use_isolated_topics,
    verdict,
)
from hedgelock_ingest_tests.kafka.read_topic import read_topic
from hedgelock_ingest_tests.sandbox.exchange_fixtures import exchange_process

PLANNED = dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED
CHECKS = [
    *(dg.AssetCheckKey(polled_key(part), "every_slot_polled") for part in POLLED_PARTS),
    dg.AssetCheckKey(polled_key("collateral"), "ltv_is_safe"),
    dg.AssetCheckKey(polled_key("wallet"), STREAM_AGREES),
]


@pytest.fixture(autouse=True)
def _own_topics(monkeypatch: pytest.MonkeyPatch, topic_prefix: str, tmp_path: Path) -> None:
    use_isolated_topics(monkeypatch, topic_prefix, tmp_path)


async def test_polls_by_hand_are_published_and_reported(kafka: EmbeddedKafka, topic_prefix: str) -> None:
    """`dagster asset materialize --select collateral` polls once, and publishes one record."""
    async with exchange_process() as exchange:
        with dg.DagsterInstance.ephemeral() as instance:
            result = await materialized(an_ingest(exchange, kafka), instance, only="collateral")
    assert 0 < figures(result, "collateral")["LTV"] < 1
    assert "fall of collateral to margin call %" in figures(result, "collateral")
    (record,) = await read_topic(kafka.bootstrap_servers, topic_prefix + "account_raw", timeout_s=30)
    assert json.loads(record.value or b"")["origin"] == "rest:collateral"
    assert {check.check_name for check in result.get_asset_check_evaluations()} == {"every_slot_polled", "ltv_is_safe"}


async def test_job_without_config_polls_all_once_and_keeps_check_results_visible(kafka: EmbeddedKafka) -> None:
    """As from launchpad and `job launch`; since runs follow each other, no check may show "in progress"."""
    async with exchange_process() as exchange:
        job = dg.Definitions(
            assets=[poll_account], jobs=[jobs.poll_job], resources={"ingest": an_ingest(exchange, kafka)}
        ).resolve_job_def(jobs.JOB_NAME)
        with dg.DagsterInstance.ephemeral() as instance:
            result = await asyncio.to_thread(job.execute_in_process, instance=instance)
            planned = instance.all_logs(result.run_id, of_type=PLANNED)
            latest = instance.event_log_storage.get_latest_asset_check_execution_by_key(CHECKS)
    assert {event.asset_key for event in result.get_asset_materialization_events()} == set(
        map(polled_key, POLLED_PARTS)
    )
    assert not planned
    verdicts = {check.name: record.status.value for check, record in latest.items()}
    assert verdicts == {check.name: "SUCCEEDED" for check in CHECKS}


async def test_check_alone_can_be_executed(kafka: EmbeddedKafka) -> None:
    """Executing a check polls for it, without an event of the asset."""
    wanted = dg.AssetCheckKey(polled_key("wallet"), STREAM_AGREES)
    async with exchange_process() as exchange:
        with dg.DagsterInstance.ephemeral() as instance:
            result = await asyncio.to_thread(
                dg.materialize,
                [poll_account],
                instance=instance,
                resources={"ingest": an_ingest(exchange, kafka)},
                selection=dg.AssetSelection.checks(wanted),
            )
    assert [check.asset_check_key for check in result.get_asset_check_evaluations()] == [wanted]
    assert result.get_asset_materialization_events() == []


async def test_late_window_polls_the_remaining_slots_and_reports_missed_ones(
    kafka: EmbeddedKafka, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that starts late misses slots; the check reports them, and none is polled late."""
    monkeypatch.setenv("BYBIT_COLLATERAL_POLL_INTERVAL", "1")
    left_ms = 6_000
    tick_ms = tick_that_ends_in(left_ms)
    async with exchange_process() as exchange:
        with dg.DagsterInstance.ephemeral() as instance:
            result = await materialized(an_ingest(exchange, kafka), instance, tick_ms=tick_ms, only="collateral")
            again = await materialized(
                an_ingest(exchange, kafka), instance, tick_ms=tick_ms - 3 * WINDOW_MS, only="collateral"
            )
    reported = figures(result, "collateral")
    assert reported["polls"] + reported["missed slots"] == WINDOW_MS // 1_000
    assert 1 <= reported["polls"] <= left_ms // 1_000 + 1
    records = await read_topic(kafka.bootstrap_servers, topic_prefix + "account_raw", timeout_s=30)
    assert len(records) == reported["polls"]
    assert not verdict(result).passed
    assert again.get_asset_materialization_events() == [], "a past window was polled, or counts as fresh"
    assert figures(again, "collateral")["polls"] == 0
    assert verdict(again).severity is dg.AssetCheckSeverity.ERROR


async def test_retry_reports_the_slots_that_passed_before_it(
    kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt fails before it polls, so the slots until the second one are missed, and must be reported."""
    monkeypatch.setenv("BYBIT_COLLATERAL_POLL_INTERVAL", "1")
    async with exchange_process() as exchange:
        await exchange.fault("fail_rest", kind="status", path="/v5/user/query-api", count=RestTiming().attempts)
        with dg.DagsterInstance.ephemeral() as instance:
            tick_ms = tick_that_ends_in(15_000)
            result = await materialized(an_ingest(exchange, kafka), instance, tick_ms=tick_ms, only="collateral")
    retries = [event for event in result.all_events if event.event_type is dg.DagsterEventType.STEP_RESTARTED]
    reported = figures(result, "collateral")
    assert retries, "the first attempt did not fail"
    assert reported["polls"] >= 1
    assert reported["polls"] + reported["missed slots"] == WINDOW_MS // 1_000


async def test_failure_after_polls_is_not_retried(
    kafka: EmbeddedKafka, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry would poll slots a second time, and report as missed what was polled."""

    def fail(*_: object) -> Iterator[dg.AssetCheckResult]:
        raise OSError("the storage is away")

    monkeypatch.setattr(assets, "evaluate", fail)
    async with exchange_process() as exchange:
        with dg.DagsterInstance.ephemeral() as instance, pytest.raises(dg.Failure, match="the storage is away"):
            await materialized(an_ingest(exchange, kafka), instance, only="loans")
    assert len(await read_topic(kafka.bootstrap_servers, topic_prefix + "account_raw", timeout_s=30)) == 1


async def test_refused_key_fails_at_once(kafka: EmbeddedKafka) -> None:
    """A key that may trade is never used, and a retry would not help."""
    async with exchange_process() as exchange:
        trading = KEYS["trading"]
        bybit = BybitResource(rest_url=exchange.rest_url, api_key=trading.api_key, api_secret=trading.api_secret)
        ingest = IngestResource(bybit=bybit, kafka=KafkaResource(bootstrap_servers=kafka.bootstrap_servers))
        with dg.DagsterInstance.ephemeral() as instance, pytest.raises(dg.Failure, match="KeyRefused"):
            await materialized(ingest, instance, only="loans")


def test_tick_whose_window_is_over_starts_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that was down runs all missed ticks at once, while the slots of the present window are due."""
    monkeypatch.setenv("BYBIT_API_KEY", "key")
    monkeypatch.setenv("BYBIT_API_SECRET", "secret")
    repository = assembly.assemble().get_repository_def()
    schedule = repository.get_schedule_def("poll_every_minute")

    def ticked(at_s: float) -> Any:
        at = datetime.fromtimestamp(at_s, UTC)
        with dg.build_schedule_context(scheduled_execution_time=at, repository_def=repository) as context:
            return schedule.evaluate_tick(context)

    over_s = (LEAD_MS + WINDOW_MS) / 1000
    assert len(ticked(time.time()).run_requests) == 1
    assert len(ticked(time.time() - over_s + 10).run_requests) == 1, "it has slots left"
    missed = ticked(time.time() - over_s - 1)
    assert not missed.run_requests
    assert missed.skip_message.endswith("is over")
