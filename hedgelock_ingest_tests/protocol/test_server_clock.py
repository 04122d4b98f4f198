"""Bybit's clock, followed by ours."""

from hedgelock_ingest.protocol.server_clock import ServerClock

WALL_MS = 1_700_000_000_000


def test_clock_runs_on_from_its_measurement() -> None:
    """The answer was given halfway between question and arrival, and time goes on since."""
    clock = ServerClock()
    clock.measured(1_000_000, sent_s=10.0, received_s=10.2)

    assert clock.now_ms(15.1, WALL_MS) == 1_005_000


def test_clock_that_was_never_measured_is_ours() -> None:
    """Better than nothing; a question whose time matters is measured first."""
    clock = ServerClock()

    assert (clock.now_ms(1.0, WALL_MS), clock.is_known(1.0)) == (WALL_MS, False)


def test_measurement_ends_with_age_and_when_forgotten() -> None:
    """Clocks drift, and a refusal says that one has."""
    clock = ServerClock()
    clock.measured(1_000_000, sent_s=0.0, received_s=0.0)
    assert clock.is_known(300.0 - 1)
    assert not clock.is_known(300.0)
    clock.forget()

    assert not clock.is_known(1.0)
