"""Conversion between times and milliseconds."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from hedgelock_ingest.models.times import unix_ms, utc_time


@given(st.integers(0, 253_402_300_799_999))
def test_milliseconds_survive_the_way_to_a_time_and_back(at_ms: int) -> None:
    """A product of floats is a millisecond short for some of them, such as `int(1.001 * 1000)`."""
    assert unix_ms(utc_time(at_ms)) == at_ms


def test_microseconds_are_cut_off() -> None:
    """A limit between two milliseconds includes the earlier one."""
    assert unix_ms(datetime(2026, 4, 14, 6, 59, 50, 532_999, UTC)) == 1_776_149_990_532
