"""Bybit's information about an API key, and our decision whether to use the key."""

import math
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

EXPIRY_WARNING_DAYS = 7

_READ_ONLY_KEY_ADVICE = (
    'create a read-only key at Bybit: "API", "Create New Key", "System-generated", "Read-Only", '
    "with the permissions for orders, positions and spot trading"
)


class KeyInformation(msgspec.Struct, frozen=True, rename="camel"):
    """
    Information about one key, without the key itself.

    `permissions` are the areas that the key has access to; `read_only` is 1 for a key that may only read.

    Source: Bybit V5, User, Get API Key Information.
    """

    read_only: int
    permissions: dict[str, list[str] | None] = {}
    ips: list[str] = []
    expired_at: str = ""

    @property
    def expires_at(self) -> datetime | None:
        """Time of expiry; None for a key that is bound to IP addresses, which does not expire."""
        if self.ips not in ([], ["*"]):
            return None
        try:
            expiry = datetime.fromisoformat(self.expired_at)
        except ValueError:
            return None
        return expiry.astimezone(UTC) if expiry.year > 1970 and expiry.tzinfo else None


class KeyVerdict(NamedTuple):
    """Decision about a key: `refusal` (None if it may be used), warnings, and time of expiry."""

    refusal: str | None
    warnings: list[str]
    expires_at: datetime | None


def judge_key(information: KeyInformation, *, now_ms: int, may_trade: bool) -> KeyVerdict:
    """Decide whether to use a key; `may_trade` is `BYBIT_ALLOW_TRADING_KEY`."""
    expires_at = information.expires_at
    if information.read_only != 1 and not may_trade:
        found = "withdraw" if _has_right(information, "Wallet", "Withdraw") else "trade"
        return KeyVerdict(
            f"this API key may {found}, only a read-only key is accepted; {_READ_ONLY_KEY_ADVICE}; "
            "or set BYBIT_ALLOW_TRADING_KEY=true",
            [],
            expires_at,
        )
    warnings = list(_warnings(information))
    if expires_at is not None:
        days = (expires_at.timestamp() - now_ms / 1000) / 86_400
        if days <= 0:
            return KeyVerdict(f"this API key has expired; {_READ_ONLY_KEY_ADVICE}", [], expires_at)
        if days <= EXPIRY_WARNING_DAYS:
            warnings.append(
                f"the API key expires {'today' if days <= 1 else f'in {math.ceil(days)} days'}; renew it, "
                "or bind it to IP addresses, which prevents expiry"
            )
    return KeyVerdict(None, warnings, expires_at)


def judge_undescribed_key(*, may_trade: bool) -> KeyVerdict:
    """
    Decide whether to use a key that Bybit cannot describe; `may_trade` is `BYBIT_ALLOW_TRADING_KEY`.

    Keys of demo trading are such: they open private lines, and they may trade. Source: Bybit V5, Demo Trading Service.
    """
    found = "Bybit does not describe this API key (10032), as it is with keys of demo trading"
    if may_trade:
        warning = f"{found}; its rights and expiry are unknown, as BYBIT_ALLOW_TRADING_KEY allows"
        return KeyVerdict(None, [warning], None)
    return KeyVerdict(
        f"{found}; it is not known to be read-only: set BYBIT_ALLOW_TRADING_KEY=true to use it anyway, "
        f"or {_READ_ONLY_KEY_ADVICE}",
        [],
        None,
    )


def _warnings(information: KeyInformation) -> list[str]:
    warnings = []
    if information.read_only != 1:
        warnings.append("the API key may trade, as BYBIT_ALLOW_TRADING_KEY allows")
    if not _has_right(information, "Spot"):
        warnings.append("the API key lacks the permission Spot: collateral and loans cannot be requested")
    if not _has_right(information, "ContractTrade") and not _has_right(information, "Derivatives"):
        warnings.append(
            "the API key lacks the permissions ContractTrade and Derivatives: "
            "positions, orders and executions of derivatives cannot be requested"
        )
    return warnings


def _has_right(information: KeyInformation, area: str, right: str | None = None) -> bool:
    rights = information.permissions.get(area) or []
    return bool(rights) if right is None else right in rights
