"""When REST requests may leave."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgelock_ingest.protocol.rate_limit import LimitHeaders, RateLimit


def _moments(limit: RateLimit, asked_s: Sequence[float], endpoint: str = "wallet") -> list[float]:
    return [now_s + limit.reserve(endpoint, now_s) for now_s in asked_s]


@given(
    per_second=st.floats(0.1, 50),
    pauses_s=st.lists(st.floats(0, 1), min_size=1, max_size=100),
)
def test_no_second_holds_more_requests_than_allowed(per_second: float, pauses_s: list[float]) -> None:
    """However requests come, any window of a second holds at most the rate; below one a second any window of two."""
    asked_s = [sum(pauses_s[: number + 1]) for number in range(len(pauses_s))]
    moments = _moments(RateLimit(per_second), asked_s)

    count = max(1, int(per_second))
    assert all(later - earlier >= count / per_second for earlier, later in zip(moments, moments[count:], strict=False))
    assert moments == sorted(moments)


def test_few_requests_leave_at_once() -> None:
    """A snapshot of the account is not spread over seconds for nothing."""
    assert _moments(RateLimit(5), [0.0] * 5) == [0.0] * 5


def test_held_endpoint_waits_until_its_limit_is_lifted() -> None:
    """What Bybit says of an endpoint goes before our own rate."""
    limit = RateLimit(5)
    limit.hold("loans", 3.0)

    assert limit.reserve("loans", 1.0) == 2.0


@pytest.mark.parametrize(("reset_ms", "expected_s"), [(None, 1.0), (10_500, 0.5), (9_000, 0.05), (10_000_000, 60.0)])
def test_reset_is_believed_within_reason(reset_ms: int | None, expected_s: float) -> None:
    """A reset in the past gives no negative wait, one in a far future no endless one."""
    assert LimitHeaders(0, reset_ms).wait_s(10_000, 1.0) == expected_s
