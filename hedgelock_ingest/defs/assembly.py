"""Puts everything that Dagster loads together."""

import logging

import dagster as dg

from hedgelock_ingest.defs import backfilling, checks, flowing, lineage, polling, stream_sensor, streaming, upkeep
from hedgelock_ingest.defs.known_settings import Known, read
from hedgelock_ingest.defs.resources import BybitResource, IngestResource, KafkaResource

log = logging.getLogger(__name__)


def assemble() -> dg.Definitions:
    """Collect the definitions that follow from the settings as they are."""
    known = read()
    for problem in known.problems:
        log.warning("wrong setting, nothing can run until it is right: %s", problem)
    for note in known.notes:
        log.warning(note)
    bybit, kafka = BybitResource(), KafkaResource()
    return dg.Definitions(
        assets=[*lineage.assets(known), polling.poll_account, checks.audit, backfilling.asset(known)],
        asset_checks=[flowing.checks(known)],
        jobs=[
            streaming.job(known),
            polling.poll_job,
            checks.check_job,
            backfilling.job,
            upkeep.replay_dead_letters_job,
            upkeep.forget_old_runs_job,
        ],
        schedules=[polling.schedule(known), checks.check_schedule, upkeep.forget_schedule],
        sensors=[stream_sensor.sensor(known)],
        resources={"bybit": bybit, "kafka": kafka, "ingest": IngestResource(bybit=bybit, kafka=kafka)},
        executor=dg.in_process_executor,  # one process a run is enough, and starts in half the time
        metadata=_metadata(known),
    )


def _metadata(known: Known) -> dict[str, str]:
    return {
        "settings": "; ".join(known.problems) or "right",
        "shards": ", ".join(known.shards),
        "Kafka": known.settings.kafka_bootstrap_servers,
        **({"notes": "; ".join(known.notes)} if known.notes else {}),
    }
