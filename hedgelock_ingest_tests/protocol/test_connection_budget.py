"""The budget of new connections."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from hedgelock_ingest.protocol.connection_budget import ConnectionBudget


def test_turns_within_the_limit_are_free() -> None:
    """A start with many lines is not slowed down."""
    budget = ConnectionBudget(limit=3, window_s=300.0)

    assert [budget.reserve(10.0) for _ in range(3)] == [0.0, 0.0, 0.0]


def test_turn_over_the_limit_waits_until_the_oldest_leaves_the_window() -> None:
    """Bybit counts connections in any 5 minutes, not in calendar ones."""
    budget = ConnectionBudget(limit=2, window_s=300.0)
    budget.reserve(0.0)
    budget.reserve(100.0)

    assert budget.reserve(110.0) == 190.0
    assert budget.reserve(110.0) == 290.0


@given(
    limit=st.integers(1, 5),
    steps=st.lists(st.floats(0.0, 20.0, allow_nan=False), min_size=1, max_size=60),
)
def test_no_window_holds_more_than_the_limit(limit: int, steps: list[float]) -> None:
    """Whenever turns are asked for, those given never exceed what Bybit allows: a ban would cut all lines."""
    budget = ConnectionBudget(limit=limit, window_s=30.0)
    now, turns = 0.0, []
    for step in steps:
        now += step
        turns.append(now + budget.reserve(now))

    # A wait added to the time again is not quite the turn: floats are rounded.
    assert all(later >= earlier - 1e-6 for earlier, later in pairwise(turns))
    for first, beyond in zip(turns, turns[limit:], strict=False):
        assert beyond - first >= 30.0 - 1e-6
