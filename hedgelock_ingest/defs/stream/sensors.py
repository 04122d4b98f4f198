"""The sensor that keeps exactly one live run per shard; a tick evaluates and returns, and never waits."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import dagster as dg

from hedgelock_ingest.defs.known_settings import KnownSettings
from hedgelock_ingest.defs.stream import heartbeats
from hedgelock_ingest.defs.stream.alerts import post
from hedgelock_ingest.defs.stream.jobs import JOB_NAME
from hedgelock_ingest.defs.stream.supervisor import (
    Decision,
    Phase,
    RunSeen,
    SupervisorTimeouts,
    Suspicion,
    decide,
    needs_alert,
)

_PARTITION_TAG = "dagster/partition"
ALERT_RETRY_S = 60.0
"""Time after which an alert that was not accepted is sent again."""
_MAX_UNFINISHED_RUNS = 200
_RECENT_RUNS = 12

_PHASES = {
    dg.DagsterRunStatus.QUEUED: Phase.QUEUED,
    dg.DagsterRunStatus.MANAGED: Phase.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED: Phase.STARTING,
    dg.DagsterRunStatus.STARTING: Phase.STARTING,
    dg.DagsterRunStatus.STARTED: Phase.STARTED,
    dg.DagsterRunStatus.CANCELING: Phase.CANCELING,
    dg.DagsterRunStatus.SUCCESS: Phase.SUCCEEDED,
    dg.DagsterRunStatus.CANCELED: Phase.CANCELED,
    dg.DagsterRunStatus.FAILURE: Phase.FAILED,
}
_UNFINISHED = [status for status, phase in _PHASES.items() if not phase.is_over]


def sensor(known: KnownSettings) -> dg.SensorDefinition:
    """Build the sensor, on by default."""

    @dg.sensor(
        name="keep_streaming",
        job_name=JOB_NAME,  # by name: given the job itself, Dagster warns of a beta feature
        minimum_interval_seconds=3,  # the daemon evaluates sensors every 5 s; with 5 here it skips every other time
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Keeps exactly one live run per shard: starts and replaces runs, backs off when they keep failing.",
    )
    def keep_streaming(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        if known.problems:
            return dg.SensorResult(skip_reason="wrong settings: " + "; ".join(known.problems))
        timeouts = SupervisorTimeouts(starting_s=known.settings.stream_start_timeout)
        # Using `context.log` creates a file that is never deleted: only a tick with something to log does.
        url = known.settings.alert_webhook_url
        return evaluate(
            context.instance,
            known.shards,
            context.cursor,
            timeouts,
            log=lambda why: context.log.warning(why),
            alert=(lambda text: post(url.get_secret_value(), text)) if url else None,
        )

    return keep_streaming


def evaluate(
    instance: dg.DagsterInstance,
    shards: Sequence[str],
    cursor: str | None,
    timeouts: SupervisorTimeouts,
    *,
    log: object = None,
    alert: Callable[[str], bool] | None = None,
) -> dg.SensorResult:
    """
    Evaluate every shard; `cursor` holds the suspicions of the last evaluation, and the active alerts.

    `alert` gets the begin of trouble once, and its end. A message that it does not accept is sent again a minute later
    at the earliest, since a slow receiver may have accepted it nevertheless.
    """
    before = _read_cursor(cursor)
    suspicions = {shard: Suspicion(**fields) for shard, fields in before["suspicions"].items()}
    alerts = {shard: shard in before["alerts"] for shard in shards}
    requests, reasons, new_suspicions, changed = [], [], {}, {}
    by_shard = _runs(instance, shards)
    for shard in shards:
        heartbeat, runs = heartbeats.find(instance, shard), by_shard[shard]
        decision = decide(time.time(), runs, heartbeat, suspicions.get(shard), timeouts)
        reasons.append(_reason(instance, shard, runs, decision, log))
        if needs_alert(alerts[shard], decision) != alerts[shard]:
            changed[shard] = reasons[-1]
        if decision.end:
            for run_id in decision.end:
                mark_failed(instance, run_id, decision.why)
            # The run has ended: its successor need not wait for the next tick.
            runs = _runs(instance, shards)[shard]
            decision = decide(time.time(), runs, heartbeat, None, timeouts)
            reasons.append(_reason(instance, shard, runs, decision, log))
        if decision.start_after is not None:
            requests.append(_request(shard, decision.start_after))
        if decision.suspicion is not None:
            new_suspicions[shard] = asdict(decision.suspicion)
    refused_s = before["refused_s"]
    if changed and alert is not None and not 0 <= time.time() - refused_s < ALERT_RETRY_S:
        if alert("\n".join(_alert_text(alerts[shard], text) for shard, text in changed.items())):
            alerts |= {shard: not alerts[shard] for shard in changed}
        else:
            refused_s = time.time()
    skip = None if requests else "; ".join(reasons)
    new_cursor = {
        "suspicions": new_suspicions,
        "alerts": [shard for shard in shards if alerts[shard]],
        "refused_s": refused_s,
    }
    return dg.SensorResult(run_requests=requests, skip_reason=skip, cursor=json.dumps(new_cursor))


def _read_cursor(cursor: str | None) -> dict[str, Any]:
    found = json.loads(cursor or "{}")
    return {"suspicions": {}, "alerts": [], "refused_s": 0.0} | (found if "suspicions" in found else {})


def _alert_text(had_alert: bool, text: str) -> str:
    return f"HedgeLock Ingest, the stream has recovered: {text}" if had_alert else f"HedgeLock Ingest, TROUBLE: {text}"


def _reason(instance: dg.DagsterInstance, shard: str, runs: Sequence[RunSeen], decision: Decision, log: object) -> str:
    why = f"{shard}: {decision.why}{_failure_text(instance, runs, decision)}"
    if decision.is_alarming and callable(log):
        log(why)
    return why


def mark_failed(instance: dg.DagsterInstance, run_id: str, why: str) -> None:
    """
    Mark a run as failed; if its process still runs, it ends itself when it reads the status.

    The run is not canceled: the code server would wait for a frozen process, and start nothing meanwhile.
    """
    record = instance.get_run_record_by_id(run_id)
    if record is None or record.dagster_run.is_finished:
        return
    instance.report_run_failed(record.dagster_run, why)


def _request(shard: str, start_after: str) -> dg.RunRequest:
    # Each run has one successor: a second daemon, or a retried tick, requests the same key.
    return dg.RunRequest(run_key=f"{JOB_NAME}:{shard}:{start_after or 'first'}", partition_key=shard)


def _runs(instance: dg.DagsterInstance, shards: Sequence[str]) -> dict[str, list[RunSeen]]:
    """Collect each shard's runs, newest first; a run launched without a partition carries the first shard."""
    unfinished = instance.get_run_records(
        dg.RunsFilter(job_name=JOB_NAME, statuses=_UNFINISHED), limit=_MAX_UNFINISHED_RUNS
    )
    last = instance.get_run_records(dg.RunsFilter(job_name=JOB_NAME), limit=_RECENT_RUNS)
    for shard in shards:  # per shard: a shard that fails all the time must not hide the others' runs
        of_shard = dg.RunsFilter(job_name=JOB_NAME, tags={_PARTITION_TAG: shard})
        last = [*last, *instance.get_run_records(of_shard, limit=_RECENT_RUNS)]
    records = {record.storage_id: record for record in [*unfinished, *last]}
    by_shard: dict[str, list[RunSeen]] = {shard: [] for shard in shards}
    for _, record in sorted(records.items(), reverse=True):
        shard = record.dagster_run.tags.get(_PARTITION_TAG, shards[0])
        if shard in by_shard:
            by_shard[shard].append(_run_seen(record, _last_event_s(instance, record.dagster_run)))
    return by_shard


def _last_event_s(instance: dg.DagsterInstance, run: dg.DagsterRun) -> float | None:
    if run.is_finished:
        return None
    last = instance.get_records_for_run(run.run_id, limit=1, ascending=False).records
    return last[0].timestamp if last else None


def _run_seen(record: dg.RunRecord, last_event_s: float | None) -> RunSeen:
    phase = _PHASES[record.dagster_run.status]
    created_s = record.create_timestamp.timestamp()
    if phase is Phase.STARTED:
        since_s = record.start_time or created_s
    else:
        since_s = created_s if phase is Phase.QUEUED else record.update_timestamp.timestamp()
    return RunSeen(
        record.dagster_run.run_id, phase, created_s, since_s, record.start_time, record.end_time, last_event_s
    )


def _failure_text(instance: dg.DagsterInstance, runs: Sequence[RunSeen], decision: Decision) -> str:
    """Return the last run's failure in brackets, if the decision is about it."""
    if not decision.is_alarming or not runs or runs[0].phase is not Phase.FAILED:
        return ""
    types = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    failure_text = ""
    for entry in instance.all_logs(runs[0].run_id, of_type=types):
        event = entry.dagster_event
        if event is None:
            continue
        if event.is_step_failure and (failure := event.step_failure_data.user_failure_data) is not None:
            return f" ({failure.description})"
        failure_text = failure_text or (event.message or "")
    return f" ({failure_text})" if failure_text else ""
