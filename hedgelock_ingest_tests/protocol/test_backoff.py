"""Backoff and circuit breaker."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgelock_ingest.protocol.backoff import Backoff, BreakerState, CircuitBreaker


class _Ceiling(Random):
    """Returns the largest value each time, to expose the ceilings."""

    def uniform(self, a: float, b: float) -> float:
        return b


def test_ceiling_doubles_up_to_the_maximum() -> None:
    """Delays grow quickly, and never exceed the configured maximum."""
    backoff = Backoff(initial_s=0.5, maximum_s=5.0, random=_Ceiling())

    assert [backoff.next_delay() for _ in range(6)] == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


def test_reset_starts_again_with_the_shortest_delay() -> None:
    """A line that was stable reconnects as fast as the first time."""
    backoff = Backoff(initial_s=0.5, maximum_s=30.0, random=_Ceiling())
    for _ in range(5):
        backoff.next_delay()

    backoff.reset()

    assert backoff.next_delay() == 0.5


def test_weeks_of_attempts_do_not_overflow() -> None:
    """2.0 ** 1024 is an OverflowError, and would end a line during a long outage."""
    backoff = Backoff(initial_s=0.5, maximum_s=30.0, random=_Ceiling())

    assert max(backoff.next_delay() for _ in range(3000)) == 30.0


@given(seed=st.integers(), attempts=st.integers(1, 40))
def test_delay_lies_between_zero_and_the_ceiling(seed: int, attempts: int) -> None:
    """Full jitter: lines lost together spread over the whole interval."""
    backoff = Backoff(initial_s=0.5, maximum_s=30.0, random=Random(seed))

    for attempt in range(attempts):
        assert 0.0 <= backoff.next_delay() <= min(30.0, 0.5 * 2**attempt)


@pytest.fixture
def breaker() -> CircuitBreaker:
    """Return a breaker that is closed, since the first probe succeeded."""
    breaker = CircuitBreaker(initial_delay_s=0.2, maximum_delay_s=3.0)
    breaker.succeeded()
    return breaker


def test_breaker_starts_half_open() -> None:
    """Before the first probe it is unknown whether the other side is available."""
    breaker = CircuitBreaker()

    assert breaker.state(0.0) is BreakerState.HALF_OPEN
    assert breaker.why(0.0) == "not connected yet"


def test_failure_opens_and_success_closes(breaker: CircuitBreaker) -> None:
    """One failure stops requests, one answer resumes them."""
    breaker.failed("KafkaUnavailable")
    assert (breaker.state(0.0), breaker.why(0.0)) == (BreakerState.OPEN, "KafkaUnavailable")

    breaker.probing()
    assert breaker.state(0.0) is BreakerState.HALF_OPEN

    breaker.succeeded()
    assert (breaker.state(0.0), breaker.why(0.0)) == (BreakerState.CLOSED, None)
    assert (breaker.openings, breaker.failures) == (1, 0)


def test_probes_come_at_growing_intervals_up_to_a_bound(breaker: CircuitBreaker) -> None:
    """The first probes come soon, later ones leave time to recover; a success resets the interval."""
    assert [breaker.failed("x") for _ in range(6)] == [0.2, 0.4, 0.8, 1.6, 3.0, 3.0]
    assert [breaker.failed("x") for _ in range(5_000)][-1] == 3.0
    assert breaker.openings == 1

    breaker.succeeded()

    assert breaker.failed("x") == 0.2
    assert breaker.openings == 2


def test_late_answer_opens_until_it_arrives(breaker: CircuitBreaker) -> None:
    """A frozen broker refuses nothing, so a missing answer must open the breaker."""
    breaker.request_sent(now_s=100.0)
    assert breaker.state(100.0 + 3.0) is BreakerState.CLOSED

    assert breaker.state(100.0 + 7.0) is BreakerState.OPEN
    assert breaker.why(100.0 + 7.0) == "no answer for 7 s"

    breaker.succeeded()
    assert breaker.state(200.0) is BreakerState.CLOSED
    assert breaker.why(200.0) is None
