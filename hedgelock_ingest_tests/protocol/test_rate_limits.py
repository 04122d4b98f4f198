"""Rate limit and connection budget."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgelock_ingest.protocol.rate_limits import ConnectionBudget, LimitHeaders, RateLimit


def _sent_s(limit: RateLimit, asked_s: Sequence[float]) -> list[float]:
    sent_s: list[float] = []
    for at_s in asked_s:
        now_s = max(at_s, sent_s[-1]) if sent_s else at_s
        sent_s.append(now_s + limit.wait_s(now_s))
        limit.sent(sent_s[-1])
    return sent_s


@given(
    per_second=st.floats(0.1, 50),
    pauses_s=st.lists(st.floats(0, 1), min_size=1, max_size=100),
)
def test_no_second_holds_more_requests_than_allowed(per_second: float, pauses_s: list[float]) -> None:
    """Any window of a second holds at most the rate; below one a second, requests are spaced evenly."""
    asked_s = [sum(pauses_s[: number + 1]) for number in range(len(pauses_s))]
    sent_s = _sent_s(RateLimit(per_second), asked_s)

    count = max(1, int(per_second))
    assert all(later - earlier >= count / per_second for earlier, later in zip(sent_s, sent_s[count:], strict=False))
    assert sent_s == sorted(sent_s)


def test_few_requests_are_sent_at_once() -> None:
    """A snapshot of the account need not be spread over seconds."""
    assert _sent_s(RateLimit(5), [0.0] * 5) == [0.0] * 5


def test_held_endpoint_waits_until_its_limit_is_lifted() -> None:
    """Bybit's limit of an endpoint has priority over our own rate."""
    limit = RateLimit(5)
    limit.hold("loans", 3.0)

    assert (limit.held_s("loans", 1.0), limit.held_s("wallet", 1.0)) == (2.0, 0.0)


@pytest.mark.parametrize(("reset_ms", "expected_s"), [(None, 1.0), (10_500, 0.5), (9_000, 0.05), (10_000_000, 60.0)])
def test_wait_until_the_reset_is_bounded(reset_ms: int | None, expected_s: float) -> None:
    """A reset in the past gives no negative wait, one in the far future no endless one."""
    assert LimitHeaders(0, reset_ms).wait_s(10_000, 1.0) == expected_s


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
