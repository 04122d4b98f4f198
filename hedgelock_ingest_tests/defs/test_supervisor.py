"""The streaming sensor's decisions, in every state that a shard's runs can be in."""

import dataclasses
from typing import Any

import pytest

from hedgelock_ingest.defs.stream.heartbeats import SignOfLife
from hedgelock_ingest.defs.stream.supervisor import Decision, Patience, Phase, RunSeen, Suspicion, decide

NOW_S = 1_000_000.0
PATIENCE = Patience()


def a_run(
    phase: Phase,
    *,
    age_s: float = 1.0,
    run_id: str = "run-1",
    lived_s: float | None = None,
    told_s_ago: float | None = None,
) -> RunSeen:
    since_s = NOW_S - age_s
    started_s = since_s - lived_s if lived_s is not None else None
    last_event_s = NOW_S - told_s_ago if told_s_ago is not None else None
    return RunSeen(run_id, phase, since_s, since_s, started_s, since_s if phase.is_over else None, last_event_s)


def a_sign(*, age_s: float, run_id: str = "run-1", hands_over: bool = False) -> SignOfLife:
    return SignOfLife(run_id, "host", 7, NOW_S - age_s, 0, hands_over)


def seen(*runs: RunSeen, sign: SignOfLife | None = None, suspicion: Suspicion | None = None) -> Decision:
    return decide(NOW_S, runs, sign, suspicion)


def failures(count: int, **more: Any) -> list[RunSeen]:
    return [a_run(Phase.FAILED, run_id=f"run-{number}", lived_s=2.0, **more) for number in range(count, 0, -1)]


def test_first_run_is_started() -> None:
    """An instance that never saw the shard brings it up."""
    assert seen().start_after == ""


@pytest.mark.parametrize("phase", [Phase.SUCCEEDED, Phase.CANCELED, Phase.FAILED])
def test_run_that_is_over_is_followed_by_its_one_successor(phase: Phase) -> None:
    """The last run's name is in the request, so that two daemons ask for the same one."""
    assert seen(a_run(phase, lived_s=2.0)).start_after == "run-1"


@pytest.mark.parametrize("phase", [Phase.QUEUED, Phase.STARTING, Phase.CANCELING])
def test_run_on_its_way_is_left_alone(phase: Phase) -> None:
    """A second one beside it would only be refused by the journal's lock."""
    decision = seen(a_run(phase))
    assert decision.start_after is None
    assert not decision.end
    assert not decision.is_alarming


def test_run_that_just_started_may_take_its_time_to_show_life() -> None:
    """Opening a journal takes a while."""
    assert not seen(a_run(Phase.STARTED, age_s=PATIENCE.starting_s - 1)).is_alarming


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.STARTED])
def test_run_that_starts_slowly_and_tells_of_it_is_left_alone(phase: Phase) -> None:
    """A loaded machine takes a while for each step; the process that began, or waits for the journal, says so."""
    assert not seen(a_run(phase, age_s=999.0, told_s_ago=PATIENCE.starting_s - 1)).is_alarming


@pytest.mark.parametrize("late", [1, 2, 5])
def test_runs_that_did_not_start_in_time_give_the_next_one_more(late: int) -> None:
    """On a machine that is slow for all of them, none would ever start."""
    before = [a_run(Phase.FAILED, run_id=f"run-{n}") for n in range(late)]
    given_s = min(PATIENCE.starting_s * 2**late, PATIENCE.longest_starting_s)
    assert not seen(a_run(Phase.STARTING, age_s=given_s - 1, run_id="now"), *before).is_alarming
    assert seen(a_run(Phase.STARTING, age_s=given_s + 1, run_id="now"), *before).is_alarming


def test_run_that_started_ends_that_count() -> None:
    """A failure of the data's way has nothing to do with how fast processes start."""
    before = a_run(Phase.FAILED, run_id="run-0", lived_s=2.0), a_run(Phase.FAILED, run_id="run-late")
    assert seen(a_run(Phase.STARTING, age_s=PATIENCE.starting_s + 1), *before).is_alarming


def test_run_that_drains_for_long_is_left_alone() -> None:
    """It goes on giving signs of life until it ends."""
    assert not seen(a_run(Phase.CANCELING, age_s=999.0), sign=a_sign(age_s=3.0)).is_alarming


def test_run_that_shows_life_is_left_alone() -> None:
    """The normal case, told with where it runs."""
    decision = seen(a_run(Phase.STARTED, age_s=9_999.0), sign=a_sign(age_s=3.0))
    assert decision.start_after is None
    assert "host, pid 7, seen 3 s ago" in decision.why


STUCK = [
    pytest.param(a_run(Phase.STARTED, age_s=9_999.0), a_sign(age_s=PATIENCE.silent_s + 1), id="silent"),
    pytest.param(a_run(Phase.STARTED, age_s=PATIENCE.starting_s + 1), None, id="never-showed-life"),
    pytest.param(
        a_run(Phase.STARTED, age_s=PATIENCE.starting_s + 1), a_sign(age_s=0, run_id="run-0"), id="sign-of-another"
    ),
    pytest.param(a_run(Phase.STARTING, age_s=PATIENCE.starting_s + 1), None, id="stuck-in-starting"),
    pytest.param(
        a_run(Phase.STARTING, age_s=999.0, told_s_ago=PATIENCE.starting_s + 1), None, id="stuck-in-a-step-of-its-start"
    ),
    pytest.param(
        a_run(Phase.CANCELING, age_s=PATIENCE.silent_s + 1),
        a_sign(age_s=PATIENCE.silent_s + 1),
        id="stuck-in-canceling",
    ),
    pytest.param(a_run(Phase.CANCELING, age_s=PATIENCE.starting_s + 1), None, id="canceled-before-it-showed-life"),
]


@pytest.mark.parametrize(("run", "sign"), STUCK)
def test_run_without_life_is_suspected_first(run: RunSeen, sign: SignOfLife | None) -> None:
    """After a machine slept, the sensor may look before the run had a chance to say that it lives."""
    decision = seen(run, sign=sign)
    assert decision.suspicion == Suspicion("run-1", NOW_S)
    assert not decision.end
    assert decision.start_after is None


@pytest.mark.parametrize(("run", "sign"), STUCK)
def test_run_without_life_is_ended_at_the_second_look(run: RunSeen, sign: SignOfLife | None) -> None:
    """Nothing else would ever end the run of a machine that is gone."""
    decision = seen(run, sign=sign, suspicion=Suspicion("run-1", NOW_S - PATIENCE.suspected_s))
    assert decision.end == ("run-1",)
    assert decision.start_after is None, "the next look starts the successor, when the end is known"


def test_suspicion_of_one_run_does_not_condemn_another() -> None:
    """Each run has its two looks."""
    decision = seen(a_run(Phase.STARTED, age_s=999.0), suspicion=Suspicion("run-0", NOW_S - 99))
    assert not decision.end


def test_suspicion_passes_when_the_run_shows_life() -> None:
    """A machine that woke up says so within seconds."""
    run = a_run(Phase.STARTED, age_s=999.0)
    assert seen(run, sign=a_sign(age_s=0.5), suspicion=Suspicion("run-1", NOW_S - 9)).suspicion is None


def test_silent_run_is_ended_although_a_second_one_waits() -> None:
    """Someone pressed Launch: the queue must not hide a run that is dead."""
    runs = a_run(Phase.QUEUED, run_id="run-2"), a_run(Phase.STARTED, age_s=999.0)
    assert seen(*runs, suspicion=Suspicion("run-1", NOW_S - 9)).end == ("run-1",)


def test_run_in_a_full_queue_is_told_and_left_where_it_is() -> None:
    """Another one would wait behind it, and the time until it may start would grow with each."""
    decision = seen(a_run(Phase.QUEUED, age_s=PATIENCE.queued_s + 1))
    assert decision.is_alarming
    assert "waiting for 61 s" in decision.why
    assert (decision.start_after, decision.end, decision.suspicion) == (None, (), None)


def test_run_whose_session_is_over_gets_its_successor_while_it_goes_on() -> None:
    """It carries the shard until the next one is ready: starting a process takes seconds."""
    run = a_run(Phase.STARTED, age_s=9_999.0)
    decision = seen(run, sign=a_sign(age_s=1.0, hands_over=True))
    assert decision.start_after == "run-1"
    assert not decision.end


@pytest.mark.parametrize("phase", [Phase.QUEUED, Phase.STARTING, Phase.STARTED])
def test_run_that_hands_over_gets_one_successor(phase: Phase) -> None:
    """While one is on its way, no other is asked for."""
    runs = a_run(phase, run_id="run-2"), a_run(Phase.STARTED, age_s=9_999.0)
    decision = seen(*runs, sign=a_sign(age_s=1.0, hands_over=True))
    assert (decision.start_after, decision.end) == (None, ())


def test_successors_that_fail_slow_down_while_the_old_run_goes_on() -> None:
    """New code that does not start must not start every five seconds, nor be given up."""
    old, sign = a_run(Phase.STARTED, run_id="run-0", age_s=9_999.0), a_sign(age_s=1.0, run_id="run-0", hands_over=True)
    assert seen(*failures(3, age_s=19.0), old, sign=sign).start_after is None
    assert seen(*failures(3, age_s=21.0), old, sign=sign).start_after == "run-3"


@pytest.mark.parametrize(("count", "wait_s"), [(2, 10), (3, 20), (4, 40), (5, 80), (6, 160), (7, 300), (12, 300)])
def test_crash_loop_slows_down(count: int, wait_s: float) -> None:
    """Runs that fail early, one after the other, wait twice as long each time, up to five minutes."""
    early = seen(*failures(count, age_s=wait_s - 1))
    late = seen(*failures(count, age_s=wait_s + 1))
    assert early.start_after is None
    assert early.is_alarming
    assert late.start_after == f"run-{count}"


def test_single_crash_does_not_wait() -> None:
    """One kill -9 is no crash loop; each second without the stream is a hole."""
    assert seen(*failures(1, age_s=0.0)).start_after == "run-1"


def test_time_spent_on_a_start_that_failed_counts_as_waiting() -> None:
    """It slowed the loop down already, and each second without the stream is a hole."""
    late = RunSeen("run-9", Phase.FAILED, NOW_S - PATIENCE.starting_s, NOW_S, None, NOW_S)
    assert seen(late, *failures(2)).start_after == "run-9"
    assert seen(dataclasses.replace(late, created_s=NOW_S - 5), *failures(2)).start_after is None


def test_run_that_did_well_ends_the_count() -> None:
    """A crash after a steady hour has nothing to do with the crashes before it."""
    good = a_run(Phase.FAILED, run_id="run-9", age_s=0.0, lived_s=PATIENCE.steady_s + 1)
    assert seen(good, *failures(8)).start_after == "run-9"
