"""Amounts of the account as exact decimals, and as Bybit writes them."""

from collections.abc import Iterable
from decimal import ROUND_DOWN, ROUND_HALF_UP, ROUND_UP, Decimal

from hedgelock_ingest.errors import SandboxError

ZERO = Decimal(0)
ONE = Decimal(1)


def text(amount: Decimal) -> str:
    """Write an amount plainly, without trailing zeros and without an exponent."""
    return f"{amount.normalize():f}" if amount else "0"


def rounded(amount: Decimal, digits: int = 8) -> Decimal:
    """Round half up, as Bybit does with fees and margins."""
    return amount.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)


def rounded_up(amount: Decimal, digits: int) -> Decimal:
    """Round away from zero, as Bybit does with interest and LTV."""
    return amount.quantize(Decimal(1).scaleb(-digits), ROUND_UP)


def truncated(amount: Decimal, digits: int) -> Decimal:
    """Leave further digits away, as Bybit does with margin rates."""
    return amount.quantize(Decimal(1).scaleb(-digits), ROUND_DOWN)


def total(amounts: Iterable[Decimal]) -> Decimal:
    """Add amounts up."""
    return sum(amounts, ZERO)


def positive(amount: Decimal | str | int) -> Decimal:
    """Read an amount that must be above zero."""
    try:
        # Through its text, so that a JSON number keeps the digits that were written.
        read = Decimal(str(amount))
    except ArithmeticError as error:
        raise SandboxError(f"{amount!r} is not an amount") from error
    if not read.is_finite() or read <= 0:
        raise SandboxError(f"{amount} is not above zero")
    return read
