"""Assemble the definitions that Dagster loads."""

import dagster as dg
import structlog

from hedgelock_ingest import logs
from hedgelock_ingest.defs.audit import assets as audit_assets
from hedgelock_ingest.defs.audit import jobs as audit_jobs
from hedgelock_ingest.defs.audit import schedules as audit_schedules
from hedgelock_ingest.defs.backfill import assets as backfill_assets
from hedgelock_ingest.defs.backfill import jobs as backfill_jobs
from hedgelock_ingest.defs.known_settings import KnownSettings, read
from hedgelock_ingest.defs.maintenance import jobs as maintenance_jobs
from hedgelock_ingest.defs.maintenance import schedules as maintenance_schedules
from hedgelock_ingest.defs.polls import assets as poll_assets
from hedgelock_ingest.defs.polls import jobs as poll_jobs
from hedgelock_ingest.defs.polls import schedules as poll_schedules
from hedgelock_ingest.defs.resources import BybitResource, IngestResource, KafkaResource
from hedgelock_ingest.defs.stream import checks as stream_checks
from hedgelock_ingest.defs.stream import jobs as stream_jobs
from hedgelock_ingest.defs.stream import sensors as stream_sensors
from hedgelock_ingest.defs.topics import assets as topic_assets

log = structlog.get_logger(__name__)


def assemble() -> dg.Definitions:
    """Collect the definitions that the present settings imply; wrong settings are logged and shown, not raised."""
    known = read()
    logs.configure_ours(known.settings)
    for problem in known.problems:
        log.warning("setting_wrong", problem=problem, consequence="no run can start until it is corrected")
    for note in known.notes:
        log.warning("setting_questionable", reason=note)
    bybit, kafka = BybitResource(), KafkaResource()
    return dg.Definitions(
        assets=[
            *topic_assets.assets(known),
            poll_assets.poll_account,
            audit_assets.audit,
            backfill_assets.asset(known),
        ],
        asset_checks=[stream_checks.checks(known)],
        jobs=[
            stream_jobs.job(known),
            poll_jobs.poll_job,
            audit_jobs.check_job,
            backfill_jobs.job,
            maintenance_jobs.replay_dead_letters_job,
            maintenance_jobs.forget_old_runs_job,
        ],
        schedules=[
            poll_schedules.schedule(known),
            audit_schedules.check_schedule,
            maintenance_schedules.forget_schedule,
        ],
        sensors=[stream_sensors.sensor(known)],
        resources={"bybit": bybit, "kafka": kafka, "ingest": IngestResource(bybit=bybit, kafka=kafka)},
        executor=dg.in_process_executor,  # one process per run is enough, and starts in half the time
        metadata=_metadata(known),
    )


def _metadata(known: KnownSettings) -> dict[str, str]:
    return {
        "settings": "; ".join(known.problems) or "valid",
        "shards": ", ".join(known.shards),
        "Kafka": known.settings.kafka_bootstrap_servers,
        **({"notes": "; ".join(known.notes)} if known.notes else {}),
    }
