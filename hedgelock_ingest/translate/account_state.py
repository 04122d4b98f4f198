"""State of the account: each part with the time it was last seen, by Bybit's clock."""

import msgspec

IDENTITIES_REMEMBERED = 5_000
"""More than one request for executions or orders can return, so that filling a gap duplicates nothing."""


class Coin(msgspec.Struct, frozen=True, gc=False):
    """A balance; `available` is None where Bybit does not report it."""

    wallet: str
    available: str | None


type PositionFields = dict[str, str | int | None]
"""A published position."""


class AccountState(msgspec.Struct):
    """
    The current account.

    `positions` are by `category:symbol:index` and include flat ones; `positions_as_of` are their (`updatedTime`,
    `seq`). `loan` holds loan_amount, collateral_value and ltv. `seen_ms` is by part. `orders` and `executions` are
    identities.
    """

    coins: dict[str, Coin] = {}
    positions: dict[str, PositionFields] = {}
    positions_as_of: dict[str, tuple[int, int]] = {}
    loan: dict[str, str] | None = None
    seen_ms: dict[str, int] = {}
    orders: list[str] = []
    executions: list[str] = []
