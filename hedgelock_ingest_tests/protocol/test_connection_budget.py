"""Budget of new connections."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from hedgelock_ingest.protocol.connection_budget import ConnectionBudget


def test_connections_within_the_limit_do_not_wait() -> None:
    """A start with many lines is not slowed down."""
    budget = ConnectionBudget(limit=3, window_s=300.0)

    assert [budget.reserve(10.0) for _ in range(3)] == [0.0, 0.0, 0.0]


def test_connection_over_the_limit_waits_until_the_oldest_leaves_the_window() -> None:
    """Bybit counts connections in any 5 minutes, not in fixed intervals."""
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
    """Reservations never exceed Bybit's limit: a ban would cut all lines."""
    budget = ConnectionBudget(limit=limit, window_s=30.0)
    now, opened_at = 0.0, []
    for step in steps:
        now += step
        opened_at.append(now + budget.reserve(now))

    # Adding the wait to the time again is not exact: floats are rounded.
    assert all(later >= earlier - 1e-6 for earlier, later in pairwise(opened_at))
    for first, beyond in zip(opened_at, opened_at[limit:], strict=False):
        assert beyond - first >= 30.0 - 1e-6
