"""FrameIdentities of accepted frames: known for long enough, and dropped eventually."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgelock_ingest.protocol.frame_identities import (
    KNOWN_FOR_MS,
    MAX_GENERATION_NAMES,
    MIN_GENERATION_NAMES,
    FrameIdentities,
)

AT_MS = 1_715_748_762_000


def test_few_names_are_never_dropped() -> None:
    """A quiet channel's last frames may come again after hours."""
    names = FrameIdentities()
    for hour in range(MIN_GENERATION_NAMES):
        names.add((hour,), AT_MS + hour * 3_600_000)

    assert names.has_all_of(range(MIN_GENERATION_NAMES))
    assert names.horizon_ms == 0


@settings(max_examples=5, deadline=None)
@given(per_ms=st.integers(1, 20), jitter=st.lists(st.integers(-200, 0), min_size=1, max_size=7))
def test_each_is_known_for_some_seconds_and_memory_is_bounded(per_ms: int, jitter: list[int]) -> None:
    """At any rate of frames the other line brings its copy in time; dropped names lie up to the horizon."""
    names = FrameIdentities()
    times: list[int] = []
    for n in range(4 * MAX_GENERATION_NAMES):
        times.append(AT_MS + n // per_ms + jitter[n % len(jitter)])
        names.add((n,), times[-1])
        if n % 4_999 == 0:
            known = [number for number in range(n + 1) if not names.has_none_of((number,))]
            recent = min(MAX_GENERATION_NAMES, (KNOWN_FOR_MS + min(jitter)) * per_ms, n)
            assert names.has_all_of(range(n - recent, n + 1))
            assert all(times[number] + min(jitter) <= names.horizon_ms for number in range(known[0]))
            assert names.horizon_ms <= times[n - recent] + max(map(abs, jitter))
            assert len(known) <= 2 * MAX_GENERATION_NAMES + 1


@pytest.mark.parametrize("ahead_ms", [4_000, 86_400_000, AT_MS * 100])
def test_frame_with_a_future_time_makes_no_copies_of_later_frames(ahead_ms: int) -> None:
    """This also holds for frames slightly out of order, unless the time is far in the future."""
    names = FrameIdentities()
    margins = []
    for n in range(40_000):
        at_ms = AT_MS + n + (ahead_ms if n == 10_000 else 0)
        names.add((n,), at_ms)
        margins.append(AT_MS + n - names.horizon_ms)

    assert min(margins) > 0
    assert min(margins) >= min(KNOWN_FOR_MS - ahead_ms, KNOWN_FOR_MS // 2)
