"""The sensor that keeps exactly one live run a shard. It looks and answers; nothing here waits."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import dagster as dg

from hedgelock_ingest.defs.known_settings import Known
from hedgelock_ingest.defs.stream import heartbeats
from hedgelock_ingest.defs.stream.alerts import post
from hedgelock_ingest.defs.stream.jobs import JOB_NAME
from hedgelock_ingest.defs.stream.supervisor import Decision, Patience, Phase, RunSeen, Suspicion, decide, needs_alert

_PARTITION_TAG = "dagster/partition"
ALERT_AGAIN_S = 60.0
"""How long an alert that was not accepted waits."""
_MOST_RUNS = 200
_LAST_RUNS = 12

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


def sensor(known: Known) -> dg.SensorDefinition:
    """Make the sensor, running from the start."""

    @dg.sensor(
        name="keep_streaming",
        job_name=JOB_NAME,  # by its name: Dagster warns of a feature in beta where it is given the job itself
        minimum_interval_seconds=3,  # the daemon looks every 5 s, and with 5 it passes over every other time
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Exactly one live run a shard: starts, replaces, and slows down when runs keep failing.",
    )
    def keep_streaming(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        if known.problems:
            return dg.SensorResult(skip_reason="wrong settings: " + "; ".join(known.problems))
        patience = Patience(starting_s=known.settings.stream_start_timeout)
        # Touching `context.log` makes a file that is never deleted: only a tick that has something to say does.
        url = known.settings.alert_webhook_url
        return evaluate(
            context.instance,
            known.shards,
            context.cursor,
            patience,
            log=lambda why: context.log.warning(why),
            alert=(lambda text: post(url.get_secret_value(), text)) if url else None,
        )

    return keep_streaming


def evaluate(
    instance: dg.DagsterInstance,
    shards: Sequence[str],
    cursor: str | None,
    patience: Patience,
    *,
    log: object = None,
    alert: Callable[[str], bool] | None = None,
) -> dg.SensorResult:
    """
    Look at every shard and answer; `cursor` holds the suspicions of the last look, and the alerts that stand.

    `alert` is told of trouble once, and of its end; what it does not accept it is told again a minute later, since
    one that is slow may have taken it all the same.
    """
    before = _remembered(cursor)
    suspicions = {shard: Suspicion(**fields) for shard, fields in before["suspicions"].items()}
    alerts = {shard: shard in before["alerts"] for shard in shards}
    requests, told, left, news = [], [], {}, {}
    by_shard = _runs(instance, shards)
    for shard in shards:
        sign, runs = heartbeats.find(instance, shard), by_shard[shard]
        decision = decide(time.time(), runs, sign, suspicions.get(shard), patience)
        told.append(_told(instance, shard, runs, decision, log))
        if needs_alert(alerts[shard], decision) != alerts[shard]:
            news[shard] = told[-1]
        if decision.end:
            for run_id in decision.end:
                end(instance, run_id, decision.why)
            # Its end is known now: what follows need not wait for the next tick.
            runs = _runs(instance, shards)[shard]
            decision = decide(time.time(), runs, sign, None, patience)
            told.append(_told(instance, shard, runs, decision, log))
        if decision.start_after is not None:
            requests.append(_request(shard, decision.start_after))
        if decision.suspicion is not None:
            left[shard] = asdict(decision.suspicion)
    refused_s = before["refused_s"]
    if news and alert is not None and not 0 <= time.time() - refused_s < ALERT_AGAIN_S:
        if alert("\n".join(_news(alerts[shard], text) for shard, text in news.items())):
            alerts |= {shard: not alerts[shard] for shard in news}
        else:
            refused_s = time.time()
    skip = None if requests else "; ".join(told)
    remembered = {"suspicions": left, "alerts": [shard for shard in shards if alerts[shard]], "refused_s": refused_s}
    return dg.SensorResult(run_requests=requests, skip_reason=skip, cursor=json.dumps(remembered))


def _remembered(cursor: str | None) -> dict[str, Any]:
    found = json.loads(cursor or "{}")
    return {"suspicions": {}, "alerts": [], "refused_s": 0.0} | (found if "suspicions" in found else {})


def _news(had_alert: bool, text: str) -> str:
    return f"HedgeLock Ingest, the stream is well again: {text}" if had_alert else f"HedgeLock Ingest, TROUBLE: {text}"


def _told(instance: dg.DagsterInstance, shard: str, runs: Sequence[RunSeen], decision: Decision, log: object) -> str:
    why = f"{shard}: {decision.why}{_reason(instance, runs, decision)}"
    if decision.is_alarming and callable(log):
        log(why)
    return why


def end(instance: dg.DagsterInstance, run_id: str, why: str) -> None:
    """
    Mark a run as failed; should it live after all, it ends itself when it sees that.

    It is not asked to cancel: the code server would wait for a frozen process, and start nothing meanwhile.
    """
    record = instance.get_run_record_by_id(run_id)
    if record is None or record.dagster_run.is_finished:
        return
    instance.report_run_failed(record.dagster_run, why)


def _request(shard: str, start_after: str) -> dg.RunRequest:
    # Each run has one successor: a second daemon, or the same tick tried again, asks for the same key.
    return dg.RunRequest(run_key=f"{JOB_NAME}:{shard}:{start_after or 'first'}", partition_key=shard)


def _runs(instance: dg.DagsterInstance, shards: Sequence[str]) -> dict[str, list[RunSeen]]:
    """Collect each shard's runs, newest first; one that was launched without a partition carries the first shard."""
    unfinished = instance.get_run_records(dg.RunsFilter(job_name=JOB_NAME, statuses=_UNFINISHED), limit=_MOST_RUNS)
    last = instance.get_run_records(dg.RunsFilter(job_name=JOB_NAME), limit=_LAST_RUNS)
    for shard in shards:  # each for itself: a shard that fails all the time must not hide the others' runs
        of_shard = dg.RunsFilter(job_name=JOB_NAME, tags={_PARTITION_TAG: shard})
        last = [*last, *instance.get_run_records(of_shard, limit=_LAST_RUNS)]
    records = {record.storage_id: record for record in [*unfinished, *last]}
    by_shard: dict[str, list[RunSeen]] = {shard: [] for shard in shards}
    for _, record in sorted(records.items(), reverse=True):
        shard = record.dagster_run.tags.get(_PARTITION_TAG, shards[0])
        if shard in by_shard:
            by_shard[shard].append(_seen(record, _last_event_s(instance, record.dagster_run)))
    return by_shard


def _last_event_s(instance: dg.DagsterInstance, run: dg.DagsterRun) -> float | None:
    if run.is_finished:
        return None
    last = instance.get_records_for_run(run.run_id, limit=1, ascending=False).records
    return last[0].timestamp if last else None


def _seen(record: dg.RunRecord, last_event_s: float | None) -> RunSeen:
    phase = _PHASES[record.dagster_run.status]
    created_s = record.create_timestamp.timestamp()
    if phase is Phase.STARTED:
        since_s = record.start_time or created_s
    else:
        since_s = created_s if phase is Phase.QUEUED else record.update_timestamp.timestamp()
    return RunSeen(
        record.dagster_run.run_id, phase, created_s, since_s, record.start_time, record.end_time, last_event_s
    )


def _reason(instance: dg.DagsterInstance, runs: Sequence[RunSeen], decision: Decision) -> str:
    """Quote why the last run failed, where that is what the decision is about."""
    if not decision.is_alarming or not runs or runs[0].phase is not Phase.FAILED:
        return ""
    types = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    told = ""
    for entry in instance.all_logs(runs[0].run_id, of_type=types):
        event = entry.dagster_event
        if event is None:
            continue
        if event.is_step_failure and (failure := event.step_failure_data.user_failure_data) is not None:
            return f" ({failure.description})"
        told = told or (event.message or "")
    return f" ({told})" if told else ""
