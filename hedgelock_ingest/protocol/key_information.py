"""What Bybit says about an API key, and what we make of it."""

import math
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

EXPIRY_WARNING_DAYS = 7

HOW_TO_MAKE_ONE = (
    'make a read-only key at Bybit: "API", "Create New Key", "System-generated", "Read-Only", '
    "with the permissions for orders, positions and spot trading"
)


class KeyInformation(msgspec.Struct, frozen=True, rename="camel"):
    """
    One key; the key itself is left out.

    `permissions` say which areas the key may touch; `read_only` 1 says that it may only look.

    Source: Bybit V5, User, Get API Key Information.
    """

    read_only: int
    permissions: dict[str, list[str] | None] = {}
    ips: list[str] = []
    expired_at: str = ""

    @property
    def expires_at(self) -> datetime | None:
        """When it expires; None for a key that is bound to addresses."""
        if self.ips not in ([], ["*"]):
            return None
        try:
            moment = datetime.fromisoformat(self.expired_at)
        except ValueError:
            return None
        return moment.astimezone(UTC) if moment.year > 1970 and moment.tzinfo else None


class KeyVerdict(NamedTuple):
    """Whether a key may be used: why not, or what is worth a warning; and when it expires."""

    refusal: str | None
    warnings: list[str]
    expires_at: datetime | None


def judge_key(information: KeyInformation, *, now_ms: int, may_trade: bool) -> KeyVerdict:
    """Decide whether we use a key; `may_trade` is `BYBIT_ALLOW_TRADING_KEY`."""
    expires_at = information.expires_at
    if information.read_only != 1 and not may_trade:
        found = "withdraw" if _may(information, "Wallet", "Withdraw") else "trade"
        return KeyVerdict(
            f"this API key may {found}, only a read-only key is taken; {HOW_TO_MAKE_ONE}; "
            "or set BYBIT_ALLOW_TRADING_KEY=true",
            [],
            expires_at,
        )
    warnings = list(_warnings(information))
    if expires_at is not None:
        days = (expires_at.timestamp() - now_ms / 1000) / 86_400
        if days <= 0:
            return KeyVerdict(f"this API key has expired; {HOW_TO_MAKE_ONE}", [], expires_at)
        if days <= EXPIRY_WARNING_DAYS:
            warnings.append(
                f"the API key expires {'today' if days <= 1 else f'in {math.ceil(days)} days'}; renew it, "
                "or bind it to addresses, which keeps it from expiring"
            )
    return KeyVerdict(None, warnings, expires_at)


def _warnings(information: KeyInformation) -> list[str]:
    warnings = []
    if information.read_only != 1:
        warnings.append("the API key may trade, allowed by BYBIT_ALLOW_TRADING_KEY")
    if not _may(information, "Spot"):
        warnings.append("the API key lacks the permission Spot: collateral and loans cannot be asked for")
    if not _may(information, "ContractTrade") and not _may(information, "Derivatives"):
        warnings.append(
            "the API key lacks the permissions ContractTrade and Derivatives: "
            "positions, orders and executions of derivatives cannot be asked for"
        )
    return warnings


def _may(information: KeyInformation, area: str, right: str | None = None) -> bool:
    rights = information.permissions.get(area) or []
    return bool(rights) if right is None else right in rights
