"""FrameIdentities of accepted frames: known for long enough, and dropped eventually."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgelock_ingest.protocol.frame_identities import (
    KNOWN_FOR_MS,
    MAX_GENERATION_IDENTITIES,
    MIN_GENERATION_IDENTITIES,
    FrameIdentities,
)

AT_MS = 1_715_748_762_000


def test_few_names_are_never_dropped() -> None:
    """A quiet channel's last frames may come again after hours."""
    identities = FrameIdentities()
    for hour in range(MIN_GENERATION_IDENTITIES):
        identities.add((hour,), AT_MS + hour * 3_600_000)

    assert identities.has_all_of(range(MIN_GENERATION_IDENTITIES))
    assert identities.horizon_ms == 0


@settings(max_examples=5, deadline=None)
@given(per_ms=st.integers(1, 20), jitter=st.lists(st.integers(-200, 0), min_size=1, max_size=7))
def test_each_frame_is_known_for_some_seconds_and_memory_is_bounded(per_ms: int, jitter: list[int]) -> None:
    """At any rate of frames the other line brings its copy in time; dropped identities lie up to the horizon."""
    identities = FrameIdentities()
    times: list[int] = []
    for n in range(4 * MAX_GENERATION_IDENTITIES):
        times.append(AT_MS + n // per_ms + jitter[n % len(jitter)])
        identities.add((n,), times[-1])
        if n % 4_999 == 0:
            known = [number for number in range(n + 1) if not identities.has_none_of((number,))]
            recent = min(MAX_GENERATION_IDENTITIES, (KNOWN_FOR_MS + min(jitter)) * per_ms, n)
            assert identities.has_all_of(range(n - recent, n + 1))
            assert all(times[number] + min(jitter) <= identities.horizon_ms for number in range(known[0]))
            assert identities.horizon_ms <= times[n - recent] + max(map(abs, jitter))
            assert len(known) <= 2 * MAX_GENERATION_IDENTITIES + 1


@pytest.mark.parametrize("ahead_ms", [4_000, 86_400_000, AT_MS * 100])
def test_frame_with_a_future_time_makes_no_copies_of_later_frames(ahead_ms: int) -> None:
    """This also holds for frames slightly out of order, unless the time is far in the future."""
    identities = FrameIdentities()
    margins = []
    for n in range(40_000):
        at_ms = AT_MS + n + (ahead_ms if n == 10_000 else 0)
        identities.add((n,), at_ms)
        margins.append(AT_MS + n - identities.horizon_ms)

    assert min(margins) > 0
    assert min(margins) >= min(KNOWN_FOR_MS - ahead_ms, KNOWN_FOR_MS // 2)


@pytest.mark.parametrize("wrong_ms", [10_000, 3_600_000, -10_000, -AT_MS])
def test_one_frame_with_a_wrong_time_drops_no_identities(wrong_ms: int) -> None:
    """At a high rate the other line's copies would come after their identities were dropped."""
    identities = FrameIdentities()
    for n in range(20_000):
        identities.add((n,), AT_MS + n // 10 + (wrong_ms if n % 5_000 == 4_999 else 0))

    assert identities.has_all_of(range(20_000))
