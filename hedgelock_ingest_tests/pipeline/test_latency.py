"""Latencies: percentiles of the last minute, with the precision of a bucket."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgelock_ingest.pipeline.latency import LatencyWindow

BUCKET = 2 ** (1 / 8) * 1.01
"""The width of a bucket, with what rounding to three digits adds."""


@given(
    latencies=st.lists(st.floats(2e-6, 3_000), min_size=1, max_size=60),
    percent=st.sampled_from([1, 50, 90, 95, 99, 99.9, 100]),
)
def test_percentile_is_the_exact_one_within_a_bucket(latencies: list[float], percent: float) -> None:
    """A percentile is never too low, so a limit that it meets is met."""
    window = LatencyWindow()
    for latency_s in latencies:
        window.observe(latency_s, 1, now_s=5.0)
    exact_ms = sorted(latencies)[max(math.ceil(len(latencies) * percent / 100) - 1, 0)] * 1_000

    found_ms = window.percentiles_ms(percent, now_s=5.0)[f"p{percent:g}"]

    assert found_ms is not None
    assert exact_ms * 0.99 <= found_ms <= exact_ms * BUCKET


def test_count_stands_for_as_many_frames() -> None:
    """One socket read returns several frames, which share their latency."""
    window = LatencyWindow()
    window.observe(0.001, 98, now_s=0.0)
    window.observe(0.1, 2, now_s=0.0)

    percentiles = window.percentiles_ms(50, 98, 99, now_s=0.0)

    assert percentiles["p50"] == percentiles["p98"] == pytest.approx(1, rel=0.1)
    assert percentiles["p99"] == pytest.approx(100, rel=0.1)
    assert window.count == 100


def test_latencies_of_more_than_a_minute_ago_are_forgotten() -> None:
    """A stall must not stay in the percentiles; the count keeps it."""
    window = LatencyWindow()
    window.observe(9.0, 1, now_s=0.0)
    slowest = []
    for second in (1.0, 15.0, 30.0, 45.0, 59.0, 69.0):
        window.observe(0.001, 1, now_s=second)
        slowest.append(window.percentiles_ms(100, now_s=second)["p100"])

    assert slowest == [*[pytest.approx(9_000, rel=0.1)] * 5, pytest.approx(1, rel=0.1)]
    assert window.count == 7


def test_percentile_without_a_measurement_is_none() -> None:
    """This holds at the start and after a minute without frames."""
    window = LatencyWindow()
    assert window.percentiles_ms(50, 99, now_s=0.0) == {"p50": None, "p99": None}

    window.observe(0.001, 1, now_s=0.0)

    assert window.percentiles_ms(50, now_s=60.0) == {"p50": None}


@pytest.mark.parametrize(("latency_s", "at_most_ms"), [(-3.0, 0.002), (0.0, 0.002), (1e9, 1e7)])
def test_latency_outside_the_scale_counts_at_its_end(latency_s: float, at_most_ms: float) -> None:
    """Clocks differ, and a frame may have waited in the journal for days."""
    window = LatencyWindow()
    window.observe(latency_s, 1, now_s=0.0)

    found_ms = window.percentiles_ms(50, now_s=0.0)["p50"]

    assert found_ms is not None
    assert found_ms <= at_most_ms
