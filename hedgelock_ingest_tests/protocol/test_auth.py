"""Signatures of a private WebSocket, and the estimate of Bybit's clock."""

from hedgelock_ingest.protocol.auth import ServerClock, websocket_signature


def test_signature_equals_a_known_one() -> None:
    """The value was computed independently; with one wrong byte Bybit refuses the key."""
    signature = websocket_signature("test-secret", 1662350400000)

    assert signature == "f072aab6fa18cd774da998325df6cfc87c3ccf10d5722e6b43b570c5feaf6172"


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
