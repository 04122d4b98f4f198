"""Exponential backoff."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from hedgelock_ingest.protocol.backoff import Backoff


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
