"""Exact arithmetic: results are rounded only where it is requested."""

from collections.abc import Callable
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgelock_ingest.errors import FrameError
from hedgelock_ingest.protocol.decimals import exact, quotient, quotient_to, rounded


def test_sum_of_long_numbers_keeps_every_digit() -> None:
    """Python's default context keeps 28 digits: the last nine of this sum would be lost."""
    with exact():
        total = Decimal("12345678901234567890123456789.123456789") + Decimal("0.000000001")
    assert str(total) == "12345678901234567890123456789.123456790"


def test_inexact_result_is_an_error() -> None:
    """A rounded amount would look exact."""
    with pytest.raises(FrameError, match="10000 digits"), exact():
        Decimal(10) ** 10_000 + Decimal("0.1")
    with pytest.raises(FrameError), exact():
        Decimal(1) / Decimal(3)


@pytest.mark.parametrize(
    "compute",
    [
        lambda: Decimal("Infinity") - Decimal("Infinity"),
        lambda: Decimal("9e999999999999999999") * 10,
        lambda: Decimal("1e-999999999999999999") * Decimal("1e-999999999999999999"),
        lambda: Decimal("1e999999999999999999").scaleb(-10).quantize(Decimal(1)),
        lambda: Decimal(1) / Decimal(0),
    ],
    ids=["no-result", "too-large", "too-small", "too-many-digits", "by-zero"],
)
def test_arithmetic_without_a_result_is_an_error_of_ours(compute: Callable[[], Decimal]) -> None:
    """Any other exception would end the stream that publishes."""
    with pytest.raises(FrameError), exact():
        compute()


def test_quotient_to_places_of_too_many_digits_is_an_error_of_ours() -> None:
    """It is refused outside of exact arithmetic, too."""
    assert quotient_to(4, Decimal(10) ** 9_995, Decimal(1)) == Decimal(10) ** 9_995
    with pytest.raises(FrameError, match="10000 digits"):
        quotient_to(4, Decimal("9" * 10_001), Decimal("1"))


def test_quotient_is_rounded_to_a_stated_number_of_digits() -> None:
    """A ratio has no exact form; its precision does not depend on the caller's context."""
    with exact():
        assert quotient(Decimal(2), Decimal(3)) == Decimal("0." + "6" * 49 + "7")


@pytest.mark.parametrize(
    ("numerator", "denominator", "ratio"),
    [
        ("18381.41", "9638.17", "1.9071"),
        ("0", "7", "0.0000"),
        ("1.00005", "1", "1.0001"),
        ("1.00004" + "9" * 80, "1", "1.0000"),
        ("1" + "0" * 60, "3", "3" * 60 + ".3333"),
    ],
)
def test_quotient_to_places_is_rounded_once(numerator: str, denominator: str, ratio: str) -> None:
    """Rounding to 50 digits first would turn 1.00004999... into 1.0001, and fail on long numbers."""
    with exact():
        assert str(quotient_to(4, Decimal(numerator), Decimal(denominator))) == ratio


def test_rounding_is_allowed_where_it_is_asked_for() -> None:
    """A price shown to people is rounded on purpose, within exact arithmetic too."""
    with exact():
        assert rounded(Decimal("1.23456"), Decimal("0.01")) == Decimal("1.23")


@given(left=st.decimals(-(10**40), 10**40, places=12), right=st.decimals(-(10**40), 10**40, places=12))
def test_exact_sums_can_be_undone(left: Decimal, right: Decimal) -> None:
    """Whatever the digits, a sum less one of its parts is the other part."""
    with exact():
        assert left + right - right == left
