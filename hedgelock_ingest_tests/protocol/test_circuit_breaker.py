"""Circuit breaker."""

import pytest

from hedgelock_ingest.protocol.circuit_breaker import BreakerState, CircuitBreaker


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


def test_connecting_alone_does_not_reset_the_interval(breaker: CircuitBreaker) -> None:
    """A broker that lets producers connect and refuses what they send is not asked at full pace."""
    delays = []
    for _ in range(4):
        breaker.reached()
        assert breaker.state(0.0) is BreakerState.CLOSED
        delays.append(breaker.failed("x"))
    assert delays == [0.2, 0.4, 0.8, 1.6]


def test_late_answer_opens_until_it_arrives(breaker: CircuitBreaker) -> None:
    """A frozen broker refuses nothing, so a missing answer must open the breaker."""
    breaker.request_sent(now_s=100.0)
    assert breaker.state(100.0 + 3.0) is BreakerState.CLOSED

    assert breaker.state(100.0 + 7.0) is BreakerState.OPEN
    assert breaker.why(100.0 + 7.0) == "no answer for 7 s"

    breaker.succeeded()
    assert breaker.state(200.0) is BreakerState.CLOSED
    assert breaker.why(200.0) is None
