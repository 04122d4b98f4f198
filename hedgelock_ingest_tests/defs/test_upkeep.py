"""Checks judge what stands in Kafka, and Dagster forgets what is old."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from hedgelock_ingest.defs import checks, upkeep
from hedgelock_ingest.defs.resources import BybitResource, IngestResource, KafkaResource
from hedgelock_ingest.defs.streaming import KIND_TAG
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.scenarios.stage import staged


async def test_checks_tell_a_hole_from_completeness(kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path) -> None:
    """After a kill the gaps are told, and nothing beyond them is missing."""
    async with staged(kafka, topic_prefix, tmp_path, rate=500) as stage:
        stage.stream.start()
        await stage.stream.ready()
        await stage.stream.until_stats("busy", lambda found: found["frames_acknowledged"] > 500)
        await stage.stream.kill()
        stage.stream.start()
        await stage.stream.ready()
        await stage.stream.until_stats("busy again", lambda found: found["frames_acknowledged"] > 500)
        await stage.stream.stopped()
        settings = stage.stream.environment()
    results = await asyncio.to_thread(_checked, kafka, settings)
    failed = [check.check_name for check in results if not check.passed]
    assert failed == ["no_holes"], results
    assert sum(check.check_name.endswith("_is_complete") for check in results) == 4


def _checked(kafka: EmbeddedKafka, environment: dict[str, str]) -> list[dg.AssetCheckEvaluation]:

    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        patch.setattr(checks, "UNDER_WAY", timedelta(0))
        for name, value in environment.items():
            patch.setenv(name, value)
        servers = KafkaResource(bootstrap_servers=kafka.bootstrap_servers)
        ingest = IngestResource(bybit=BybitResource(), kafka=servers)
        job = dg.Definitions(assets=[checks.audit], jobs=[checks.check_job], resources={"ingest": ingest})
        result = job.resolve_job_def(checks.JOB_NAME).execute_in_process(instance=instance)
    return list(result.get_asset_check_evaluations())


def test_old_runs_are_forgotten_and_young_ones_kept() -> None:
    """Only what is over, old and ours goes."""

    @dg.op
    def nothing() -> None: ...

    @dg.job(tags={KIND_TAG: "poll"})
    def ours() -> None:
        nothing()

    @dg.job
    def another() -> None:
        nothing()

    with dg.DagsterInstance.ephemeral() as instance:
        ours.execute_in_process(instance=instance)
        another.execute_in_process(instance=instance)
        assert upkeep.forget_older(instance, "poll", datetime.now(UTC) - timedelta(hours=1)) == 0
        assert upkeep.forget_older(instance, "poll", datetime.now(UTC) + timedelta(hours=1)) == 1
        assert [run.job_name for run in instance.get_runs()] == ["another"]
