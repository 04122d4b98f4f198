"""The streaming sensor's decisions, for every state of a shard's runs."""

import dataclasses
from typing import Any

import pytest

from hedgelock_ingest.defs.stream.heartbeats import Heartbeat
from hedgelock_ingest.defs.stream.supervisor import Decision, Phase, RunSeen, SupervisorTimeouts, Suspicion, decide

NOW_S = 1_000_000.0
TIMEOUTS = SupervisorTimeouts()


def a_run(
    phase: Phase,
    *,
    age_s: float = 1.0,
    run_id: str = "run-1",
    lived_s: float | None = None,
    last_event_age_s: float | None = None,
) -> RunSeen:
    since_s = NOW_S - age_s
    started_s = since_s - lived_s if lived_s is not None else None
    last_event_s = NOW_S - last_event_age_s if last_event_age_s is not None else None
    return RunSeen(run_id, phase, since_s, since_s, started_s, since_s if phase.is_over else None, last_event_s)


def a_heartbeat(*, age_s: float, run_id: str = "run-1", hands_over: bool = False) -> Heartbeat:
    return Heartbeat(run_id, "host", 7, NOW_S - age_s, 0, hands_over)


def decided(*runs: RunSeen, heartbeat: Heartbeat | None = None, suspicion: Suspicion | None = None) -> Decision:
    return decide(NOW_S, runs, heartbeat, suspicion)


def failures(count: int, **more: Any) -> list[RunSeen]:
    return [a_run(Phase.FAILED, run_id=f"run-{number}", lived_s=2.0, **more) for number in range(count, 0, -1)]


def test_first_run_is_started() -> None:
    """An instance without runs of the shard starts one."""
    assert decided().start_after == ""


@pytest.mark.parametrize("phase", [Phase.SUCCEEDED, Phase.CANCELED, Phase.FAILED])
def test_finished_run_is_followed_by_one_successor(phase: Phase) -> None:
    """The request contains the last run's id, so that two daemons request the same run."""
    assert decided(a_run(phase, lived_s=2.0)).start_after == "run-1"


@pytest.mark.parametrize("phase", [Phase.QUEUED, Phase.STARTING, Phase.CANCELING])
def test_run_that_is_starting_or_ending_is_left_alone(phase: Phase) -> None:
    """A second run would only be refused by the journal's lock."""
    decision = decided(a_run(phase))
    assert decision.start_after is None
    assert not decision.end
    assert not decision.is_alarming


def test_run_that_has_just_started_needs_no_heartbeat_yet() -> None:
    """Opening a journal takes a while."""
    assert not decided(a_run(Phase.STARTED, age_s=TIMEOUTS.starting_s - 1)).is_alarming


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.STARTED])
def test_run_that_starts_slowly_with_recent_events_is_left_alone(phase: Phase) -> None:
    """A loaded machine takes a while for each step; each step, and the wait for the journal, writes an event."""
    assert not decided(a_run(phase, age_s=999.0, last_event_age_s=TIMEOUTS.starting_s - 1)).is_alarming


@pytest.mark.parametrize("late", [1, 2, 5])
def test_late_starts_extend_the_timeout_of_the_next_run(late: int) -> None:
    """On a slow machine no run would start otherwise."""
    before = [a_run(Phase.FAILED, run_id=f"run-{n}") for n in range(late)]
    given_s = min(TIMEOUTS.starting_s * 2**late, TIMEOUTS.longest_starting_s)
    assert not decided(a_run(Phase.STARTING, age_s=given_s - 1, run_id="now"), *before).is_alarming
    assert decided(a_run(Phase.STARTING, age_s=given_s + 1, run_id="now"), *before).is_alarming


def test_run_that_started_resets_the_start_timeout() -> None:
    """A failure while streaming does not depend on how fast processes start."""
    before = a_run(Phase.FAILED, run_id="run-0", lived_s=2.0), a_run(Phase.FAILED, run_id="run-late")
    assert decided(a_run(Phase.STARTING, age_s=TIMEOUTS.starting_s + 1), *before).is_alarming


def test_run_that_drains_for_long_is_left_alone() -> None:
    """It writes heartbeats until it ends."""
    assert not decided(a_run(Phase.CANCELING, age_s=999.0), heartbeat=a_heartbeat(age_s=3.0)).is_alarming


def test_run_with_a_recent_heartbeat_is_left_alone() -> None:
    """The normal case; the reason names host and process."""
    decision = decided(a_run(Phase.STARTED, age_s=9_999.0), heartbeat=a_heartbeat(age_s=3.0))
    assert decision.start_after is None
    assert "host, pid 7, last heartbeat 3 s ago" in decision.why


STUCK = [
    pytest.param(a_run(Phase.STARTED, age_s=9_999.0), a_heartbeat(age_s=TIMEOUTS.silent_s + 1), id="silent"),
    pytest.param(a_run(Phase.STARTED, age_s=TIMEOUTS.starting_s + 1), None, id="no-heartbeat-ever"),
    pytest.param(
        a_run(Phase.STARTED, age_s=TIMEOUTS.starting_s + 1),
        a_heartbeat(age_s=0, run_id="run-0"),
        id="heartbeat-of-another-run",
    ),
    pytest.param(a_run(Phase.STARTING, age_s=TIMEOUTS.starting_s + 1), None, id="stuck-in-starting"),
    pytest.param(
        a_run(Phase.STARTING, age_s=999.0, last_event_age_s=TIMEOUTS.starting_s + 1),
        None,
        id="stuck-in-a-step-of-its-start",
    ),
    pytest.param(
        a_run(Phase.CANCELING, age_s=TIMEOUTS.silent_s + 1),
        a_heartbeat(age_s=TIMEOUTS.silent_s + 1),
        id="stuck-in-canceling",
    ),
    pytest.param(a_run(Phase.CANCELING, age_s=TIMEOUTS.starting_s + 1), None, id="canceled-before-its-first-heartbeat"),
]


@pytest.mark.parametrize(("run", "heartbeat"), STUCK)
def test_run_without_heartbeat_is_suspected_first(run: RunSeen, heartbeat: Heartbeat | None) -> None:
    """After a machine slept, the sensor may evaluate before the run's next heartbeat."""
    decision = decided(run, heartbeat=heartbeat)
    assert decision.suspicion == Suspicion("run-1", NOW_S)
    assert not decision.end
    assert decision.start_after is None


@pytest.mark.parametrize(("run", "heartbeat"), STUCK)
def test_run_without_heartbeat_is_ended_at_the_second_evaluation(run: RunSeen, heartbeat: Heartbeat | None) -> None:
    """Nothing else would end the run of a lost machine."""
    decision = decided(run, heartbeat=heartbeat, suspicion=Suspicion("run-1", NOW_S - TIMEOUTS.suspected_s))
    assert decision.end == ("run-1",)
    assert decision.start_after is None, "the next evaluation starts the successor, when the end is known"


def test_suspicion_of_one_run_does_not_end_another() -> None:
    """Each run is evaluated twice before it is ended."""
    decision = decided(a_run(Phase.STARTED, age_s=999.0), suspicion=Suspicion("run-0", NOW_S - 99))
    assert not decision.end


def test_suspicion_ends_with_a_heartbeat() -> None:
    """A machine that resumes writes a heartbeat within seconds."""
    run = a_run(Phase.STARTED, age_s=999.0)
    assert decided(run, heartbeat=a_heartbeat(age_s=0.5), suspicion=Suspicion("run-1", NOW_S - 9)).suspicion is None


def test_silent_run_is_ended_although_a_second_one_waits() -> None:
    """A queued run, launched by hand, must not hide a dead one."""
    runs = a_run(Phase.QUEUED, run_id="run-2"), a_run(Phase.STARTED, age_s=999.0)
    assert decided(*runs, suspicion=Suspicion("run-1", NOW_S - 9)).end == ("run-1",)


def test_run_in_a_full_queue_is_reported_and_left_there() -> None:
    """Another run would wait behind it, and the wait would grow with each run."""
    decision = decided(a_run(Phase.QUEUED, age_s=TIMEOUTS.queued_s + 1))
    assert decision.is_alarming
    assert "waiting for 61 s" in decision.why
    assert (decision.start_after, decision.end, decision.suspicion) == (None, (), None)


def test_run_whose_session_is_over_gets_its_successor_while_it_continues() -> None:
    """It carries the shard until the next one is ready: starting a process takes seconds."""
    run = a_run(Phase.STARTED, age_s=9_999.0)
    decision = decided(run, heartbeat=a_heartbeat(age_s=1.0, hands_over=True))
    assert decision.start_after == "run-1"
    assert not decision.end


@pytest.mark.parametrize("phase", [Phase.QUEUED, Phase.STARTING, Phase.STARTED])
def test_run_that_hands_over_gets_one_successor(phase: Phase) -> None:
    """While one successor starts, no other is requested."""
    runs = a_run(phase, run_id="run-2"), a_run(Phase.STARTED, age_s=9_999.0)
    decision = decided(*runs, heartbeat=a_heartbeat(age_s=1.0, hands_over=True))
    assert (decision.start_after, decision.end) == (None, ())


def test_failing_successors_back_off_while_the_old_run_continues() -> None:
    """New code that fails to start is retried, but not every five seconds."""
    old, heartbeat = (
        a_run(Phase.STARTED, run_id="run-0", age_s=9_999.0),
        a_heartbeat(age_s=1.0, run_id="run-0", hands_over=True),
    )
    assert decided(*failures(3, age_s=19.0), old, heartbeat=heartbeat).start_after is None
    assert decided(*failures(3, age_s=21.0), old, heartbeat=heartbeat).start_after == "run-3"


@pytest.mark.parametrize(("count", "wait_s"), [(2, 10), (3, 20), (4, 40), (5, 80), (6, 160), (7, 300), (12, 300)])
def test_crash_loop_backs_off(count: int, wait_s: float) -> None:
    """Each early failure in a row doubles the wait, up to five minutes."""
    early = decided(*failures(count, age_s=wait_s - 1))
    late = decided(*failures(count, age_s=wait_s + 1))
    assert early.start_after is None
    assert early.is_alarming
    assert late.start_after == f"run-{count}"


def test_single_crash_does_not_wait() -> None:
    """One kill -9 is no crash loop; each second without the stream is a gap."""
    assert decided(*failures(1, age_s=0.0)).start_after == "run-1"


def test_time_spent_on_a_start_that_failed_counts_as_waiting() -> None:
    """It delayed the loop already, and each second without the stream is a gap."""
    late = RunSeen("run-9", Phase.FAILED, NOW_S - TIMEOUTS.starting_s, NOW_S, None, NOW_S)
    assert decided(late, *failures(2)).start_after == "run-9"
    assert decided(dataclasses.replace(late, created_s=NOW_S - 5), *failures(2)).start_after is None


def test_steady_run_resets_the_backoff() -> None:
    """A crash after a steady hour is unrelated to the crashes before it."""
    good = a_run(Phase.FAILED, run_id="run-9", age_s=0.0, lived_s=TIMEOUTS.steady_s + 1)
    assert decided(good, *failures(8)).start_after == "run-9"
