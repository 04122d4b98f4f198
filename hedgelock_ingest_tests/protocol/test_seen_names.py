"""Names of what was accepted: known for long enough, and forgotten some time."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgelock_ingest.protocol.seen_names import FEW_IDENTITIES, KNOWN_FOR_MS, KNOWN_IDENTITIES, Names

AT_MS = 1_715_748_762_000


def test_all_are_known_as_long_as_they_are_few() -> None:
    """A quiet channel's last frames may come again after hours."""
    names = Names()
    for hour in range(FEW_IDENTITIES):
        names.add((hour,), AT_MS + hour * 3_600_000)

    assert names.has_all_of(range(FEW_IDENTITIES))
    assert names.horizon_ms == 0


@settings(max_examples=5, deadline=None)
@given(per_ms=st.integers(1, 20), jitter=st.lists(st.integers(-200, 0), min_size=1, max_size=7))
def test_each_is_known_for_some_seconds_and_memory_is_bounded(per_ms: int, jitter: list[int]) -> None:
    """At any rate: the other line brings its copy within that time; what is forgotten lies up to the horizon."""
    names = Names()
    times: list[int] = []
    for n in range(4 * KNOWN_IDENTITIES):
        times.append(AT_MS + n // per_ms + jitter[n % len(jitter)])
        names.add((n,), times[-1])
        if n % 4_999 == 0:
            known = [number for number in range(n + 1) if not names.has_none_of((number,))]
            recent = min(KNOWN_IDENTITIES, (KNOWN_FOR_MS + min(jitter)) * per_ms, n)
            assert names.has_all_of(range(n - recent, n + 1))
            assert all(times[number] + min(jitter) <= names.horizon_ms for number in range(known[0]))
            assert names.horizon_ms <= times[n - recent] + max(map(abs, jitter))
            assert len(known) <= 2 * KNOWN_IDENTITIES + 1


@pytest.mark.parametrize("ahead_ms", [4_000, 86_400_000, AT_MS * 100])
def test_frame_from_the_future_makes_no_copies_of_what_follows(ahead_ms: int) -> None:
    """Nor of what comes a little out of order, if the frame is not much too early."""
    names = Names()
    margins = []
    for n in range(40_000):
        at_ms = AT_MS + n + (ahead_ms if n == 10_000 else 0)
        names.add((n,), at_ms)
        margins.append(AT_MS + n - names.horizon_ms)

    assert min(margins) > 0
    assert min(margins) >= min(KNOWN_FOR_MS - ahead_ms, KNOWN_FOR_MS // 2)
