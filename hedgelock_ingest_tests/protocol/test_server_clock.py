"""Estimate of Bybit's clock."""

from hedgelock_ingest.protocol.server_clock import ServerClock

WALL_MS = 1_700_000_000_000


def test_clock_advances_from_its_measurement() -> None:
    """Bybit took the time halfway between request and arrival, and time has passed since."""
    clock = ServerClock()
    clock.measured(1_000_000, sent_s=10.0, received_s=10.2)

    assert clock.now_ms(15.1, WALL_MS) == 1_005_000


def test_clock_that_was_never_measured_returns_our_time() -> None:
    """Callers that need Bybit's exact time measure it first."""
    clock = ServerClock()

    assert (clock.now_ms(1.0, WALL_MS), clock.is_known(1.0)) == (WALL_MS, False)


def test_measurement_ends_with_age_and_when_forgotten() -> None:
    """Clocks drift, and Bybit's refusal of a timestamp shows that one has."""
    clock = ServerClock()
    clock.measured(1_000_000, sent_s=0.0, received_s=0.0)
    assert clock.is_known(300.0 - 1)
    assert not clock.is_known(300.0)
    clock.forget()

    assert not clock.is_known(1.0)
