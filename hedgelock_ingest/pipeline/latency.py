"""Latencies of the last minute, counted in buckets so that a measurement costs one addition."""

import math
from collections import deque

_BUCKETS_PER_OCTAVE = 8
_BUCKETS = 32 * _BUCKETS_PER_OCTAVE  # from 1 microsecond to more than an hour
_SLICE_S = 10.0
_SLICES = 6


class LatencyWindow:
    """
    Percentiles over the last 60 s, and the count since the start; latencies are in seconds.

    A bucket is 9 % wide. `now_s` is a monotonic clock.
    """

    def __init__(self) -> None:
        self.count = 0
        self._slices: deque[tuple[float, list[int]]] = deque(maxlen=_SLICES)

    def observe(self, latency_s: float, count: int, now_s: float) -> None:
        """Record `count` frames of a latency; a negative one, caused by clock differences, counts as 0."""
        latency_us = latency_s * 1e6
        bucket = min(int(math.log2(latency_us) * _BUCKETS_PER_OCTAVE), _BUCKETS - 1) if latency_us > 1 else 0
        if not self._slices or now_s - self._slices[-1][0] >= _SLICE_S:
            self._slices.append((now_s, [0] * _BUCKETS))
        self._slices[-1][1][bucket] += count
        self.count += count

    def percentiles_ms(self, *percents: float, now_s: float) -> dict[str, float | None]:
        """Return `{"p50": milliseconds, …}`, None without a measurement in the last 60 s."""
        recent = [counts for began_s, counts in self._slices if now_s - began_s < _SLICE_S * _SLICES]
        merged = [sum(column) for column in zip(*recent, strict=True)]
        total = sum(merged)
        return {f"p{percent:g}": _percentile_ms(merged, total * percent / 100) for percent in percents}


def _percentile_ms(counts: list[int], rank: float) -> float | None:
    seen = 0
    for bucket, count in enumerate(counts):
        seen += count
        if count and seen >= rank:
            return float(f"{2 ** ((bucket + 1) / _BUCKETS_PER_OCTAVE) / 1000:.3g}")
    return None
