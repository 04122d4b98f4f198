"""Decisions of the streaming sensor about one shard, as a function of its runs and heartbeat."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from hedgelock_ingest.defs.stream.heartbeats import Heartbeat


class Phase(StrEnum):
    """The phase of a run."""

    QUEUED = "queued"
    STARTING = "starting"
    STARTED = "started"
    CANCELING = "canceling"
    SUCCEEDED = "succeeded"
    CANCELED = "canceled"
    FAILED = "failed"

    @property
    def is_over(self) -> bool:
        """Whether it is final."""
        return self in (Phase.SUCCEEDED, Phase.CANCELED, Phase.FAILED)


@dataclass(frozen=True, slots=True)
class RunSeen:
    """
    One run of the shard; times are seconds since 1970.

    `since_s` is when it entered its phase, as far as known; `last_event_s` is that of its last event log entry.
    """

    run_id: str
    phase: Phase
    created_s: float
    since_s: float
    started_s: float | None = None
    ended_s: float | None = None
    last_event_s: float | None = None

    @property
    def never_started(self) -> bool:
        """Whether it failed before its process reported the start."""
        return self.phase is Phase.FAILED and self.started_s is None


@dataclass(frozen=True, slots=True)
class SupervisorTimeouts:
    """
    Timeouts, in seconds, after which a run counts as stuck, and the backoff after failures.

    `starting_s` holds for each step of a start, and doubles when runs did not start in time, up to
    `longest_starting_s`: on a slow machine each run would otherwise be ended for being slow.
    """

    queued_s: float = 60.0
    starting_s: float = 25.0
    longest_starting_s: float = 100.0
    silent_s: float = 15.0
    suspected_s: float = 4.0
    first_backoff_s: float = 5.0
    longest_backoff_s: float = 300.0
    steady_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A run that was without heartbeat at the last evaluation, and since when."""

    run_id: str
    since_s: float


@dataclass(frozen=True, slots=True)
class Decision:
    """
    The action: start the successor of `start_after` (the last run's id, "" if there is none), end the runs in `end`.

    `why` is a sentence for the operator; `suspicion` is passed to the next evaluation; `is_alarming` requires
    attention; `is_steady` means that a run has carried the shard for a while.
    """

    why: str
    start_after: str | None = None
    end: tuple[str, ...] = ()
    suspicion: Suspicion | None = None
    is_alarming: bool = False
    is_steady: bool = False


def needs_alert(has_alert: bool, decision: Decision) -> bool:
    """Return whether an alert is active: from the first trouble until a run has been steady for a while."""
    return decision.is_alarming or (has_alert and not decision.is_steady)


def decide(
    now_s: float,
    runs: Sequence[RunSeen],
    heartbeat: Heartbeat | None,
    suspicion: Suspicion | None,
    timeouts: SupervisorTimeouts = SupervisorTimeouts(),
) -> Decision:
    """
    Decide about one shard.

    A run is ended only when two evaluations find it without heartbeat: after a machine slept, or the storage was
    unavailable, the first evaluation precedes the run's next heartbeat.

    Args:
        now_s: Seconds since 1970.
        runs: The shard's runs, newest first: all unfinished ones, and the last finished ones.
        heartbeat: The last heartbeat of the shard.
        suspicion: The suspicion of the last decision.
        timeouts: The timeouts.
    """
    unfinished = [run for run in runs if not run.phase.is_over]
    starting_s = _starting_s(runs, timeouts)
    stuck = [run for run in unfinished if _is_stuck(run, now_s, heartbeat, starting_s, timeouts.silent_s)]
    healthy = [run for run in unfinished if run not in stuck]
    if stuck:
        return _decide_about_stuck(stuck[0], now_s, suspicion, timeouts)
    if len(healthy) == 1 and _hands_over(healthy[0], heartbeat):
        return _decide_about_start(now_s, runs, timeouts)
    if healthy:
        return _decide_about_healthy(healthy, heartbeat, now_s, timeouts)
    return _decide_about_start(now_s, runs, timeouts)


def _starting_s(runs: Sequence[RunSeen], timeouts: SupervisorTimeouts) -> float:
    late = 0
    for run in runs:
        if run.phase.is_over and not run.never_started:
            break
        late += run.never_started
    return max(timeouts.starting_s, min(timeouts.starting_s * 2.0**late, timeouts.longest_starting_s))


def _is_stuck(run: RunSeen, now_s: float, heartbeat: Heartbeat | None, starting_s: float, silent_s: float) -> bool:
    if run.phase is Phase.QUEUED:
        return False  # its successor would wait in the same queue
    # Each step of a start has an event: the launch, the process, the run, its wait for the journal.
    last_event_s = max(run.since_s, run.last_event_s or 0.0)
    if run.phase is Phase.STARTING or heartbeat is None or heartbeat.run_id != run.run_id:
        return now_s - last_event_s > starting_s
    return now_s - max(heartbeat.at_s, last_event_s) > silent_s


def _hands_over(run: RunSeen, heartbeat: Heartbeat | None) -> bool:
    return heartbeat is not None and heartbeat.run_id == run.run_id and heartbeat.hands_over


def _decide_about_stuck(
    run: RunSeen, now_s: float, suspicion: Suspicion | None, timeouts: SupervisorTimeouts
) -> Decision:
    if suspicion is None or suspicion.run_id != run.run_id:
        why = f"run {_short(run.run_id)} is {run.phase} and has no heartbeat; checking again before it is ended"
        return Decision(why, suspicion=Suspicion(run.run_id, now_s), is_alarming=True)
    if now_s - suspicion.since_s < timeouts.suspected_s:
        return Decision(f"run {_short(run.run_id)} still has no heartbeat", suspicion=suspicion, is_alarming=True)
    why = f"run {_short(run.run_id)} was {run.phase} without a heartbeat; it was ended, the next one follows"
    return Decision(why, end=(run.run_id,), is_alarming=True)


def _decide_about_healthy(
    healthy: Sequence[RunSeen], heartbeat: Heartbeat | None, now_s: float, timeouts: SupervisorTimeouts
) -> Decision:
    why = _condition(healthy, heartbeat, now_s)
    waits_s = [now_s - run.since_s for run in healthy if run.phase is Phase.QUEUED]
    if waits_s and max(waits_s) > timeouts.queued_s:
        why += f"; waiting for {max(waits_s):.0f} s: check the limits of concurrent runs, and whether runs are launched"
        return Decision(why, is_alarming=True)
    started_s = [run.since_s for run in healthy if run.phase is Phase.STARTED]
    return Decision(why, is_steady=bool(started_s) and now_s - min(started_s) > timeouts.steady_s)


def _condition(healthy: Sequence[RunSeen], heartbeat: Heartbeat | None, now_s: float) -> str:
    run = next((each for each in healthy if heartbeat is not None and each.run_id == heartbeat.run_id), healthy[0])
    text = f"run {_short(run.run_id)} is {run.phase}"
    if heartbeat is not None and heartbeat.run_id == run.run_id:
        text += f" on {heartbeat.host}, pid {heartbeat.pid}, last heartbeat {max(now_s - heartbeat.at_s, 0):.0f} s ago"
    others = len(healthy) - 1
    return text + (f"; {others} more: waiting as successor, or refused by the journal's lock" if others else "")


def _decide_about_start(now_s: float, runs: Sequence[RunSeen], timeouts: SupervisorTimeouts) -> Decision:
    if not runs:
        return Decision("no run yet; starting the first", start_after="")
    last = runs[0]
    failures = _failures_in_a_row(runs, timeouts)
    if failures:
        wait_s = min(timeouts.first_backoff_s * 2 ** (failures - 1), timeouts.longest_backoff_s)
        wait_s = 0.0 if failures == 1 else wait_s
        # The time spent on a start that failed counts as waiting, so that the outage is not prolonged.
        left_s = (last.created_s if last.never_started else last.ended_s or last.since_s) + wait_s - now_s
        why = f"{failures} runs in a row failed early" if failures > 1 else f"run {_short(last.run_id)} failed"
        if left_s > 0:
            return Decision(f"{why}; next start in {left_s:.0f} s", is_alarming=True)
        return Decision(f"{why}; starting the next", start_after=last.run_id, is_alarming=failures > 1)
    done = last.phase if last.phase.is_over else "hands over"
    return Decision(f"run {_short(last.run_id)} {done}; starting the next", start_after=last.run_id)


def _failures_in_a_row(runs: Sequence[RunSeen], timeouts: SupervisorTimeouts) -> int:
    """Count the failed runs since the last successful one; a long run that failed in the end counts as one."""
    failures = 0
    for run in runs:
        if run.phase is not Phase.FAILED:
            break
        failures += 1
        if run.started_s is not None and (run.ended_s or run.since_s) - run.started_s > timeouts.steady_s:
            break
    return failures


def _short(run_id: str) -> str:
    return run_id[:8]
