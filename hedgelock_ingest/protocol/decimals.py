"""Decimal arithmetic of the whole project: exact, or rounded where the caller states how far."""

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import MAX_EMAX, MIN_EMIN, Clamped, Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow
from decimal import localcontext as _localcontext
from fractions import Fraction

from hedgelock_ingest.errors import FrameError

DIGITS = 10_000
"""Precision of all arithmetic, far beyond any amount that Bybit sends."""

QUOTIENT_DIGITS = 50
"""Significant digits of a quotient, which has no exact decimal form."""

_TRAPS = [InvalidOperation, DivisionByZero, Overflow, Clamped]
_EXACT = Context(prec=DIGITS, Emin=MIN_EMIN, Emax=MAX_EMAX, traps=[*_TRAPS, Inexact])
_QUOTIENT = Context(prec=QUOTIENT_DIGITS, Emin=MIN_EMIN, Emax=MAX_EMAX, traps=_TRAPS)
_ROUNDING = Context(prec=DIGITS, Emin=MIN_EMIN, Emax=MAX_EMAX, traps=_TRAPS)


@contextmanager
def exact() -> Iterator[None]:
    """
    Compute sums, differences and products without rounding.

    Raises:
        FrameError: A result has more than `DIGITS` digits, or there is none.
    """
    try:
        with _localcontext(_EXACT):
            yield
    except ArithmeticError as error:
        raise FrameError(f"numbers without an exact result of at most {DIGITS} digits") from error


def quotient(numerator: Decimal, denominator: Decimal) -> Decimal:
    """Divide, rounded to `QUOTIENT_DIGITS` significant digits; the denominator is not zero."""
    return _QUOTIENT.divide(numerator, denominator)


def quotient_to(places: int, numerator: Decimal, denominator: Decimal) -> Decimal:
    """
    Divide, rounded half up, once, to decimal places; neither number is negative, the denominator is not zero.

    Raises:
        FrameError: The quotient has more than `DIGITS` digits.
    """
    units = Fraction(numerator) / Fraction(denominator) * 10**places
    with exact():
        return Decimal((2 * units.numerator + units.denominator) // (2 * units.denominator)).scaleb(-places)


def rounded(number: Decimal, unit: Decimal) -> Decimal:
    """Round half even to a multiple of a unit such as `Decimal("0.01")`."""
    return number.quantize(unit, context=_ROUNDING)
