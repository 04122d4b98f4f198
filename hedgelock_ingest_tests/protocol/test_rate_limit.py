"""Rate limit of REST requests."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgelock_ingest.protocol.rate_limit import LimitHeaders, RateLimit


def _sent_s(limit: RateLimit, asked_s: Sequence[float], endpoint: str = "wallet") -> list[float]:
    return [now_s + limit.reserve(endpoint, now_s) for now_s in asked_s]


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

    assert limit.reserve("loans", 1.0) == 2.0


@pytest.mark.parametrize(("reset_ms", "expected_s"), [(None, 1.0), (10_500, 0.5), (9_000, 0.05), (10_000_000, 60.0)])
def test_wait_until_the_reset_is_bounded(reset_ms: int | None, expected_s: float) -> None:
    """A reset in the past gives no negative wait, one in the far future no endless one."""
    assert LimitHeaders(0, reset_ms).wait_s(10_000, 1.0) == expected_s
