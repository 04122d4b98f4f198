"""Bybit's information about the account, and what it means for the figures that we publish."""

import msgspec

_NOT_UNIFIED = 1


class AccountInformation(msgspec.Struct, frozen=True, rename="camel"):
    """
    The account's kind and margin mode.

    Source: Bybit V5, Account, Get Account Info.
    """

    unified_margin_status: int
    margin_mode: str

    @property
    def concerns(self) -> list[str]:
        """Warnings for the operator; empty when all figures apply to this account."""
        found = []
        if self.unified_margin_status == _NOT_UNIFIED:
            found.append("the account is not a unified one, so Bybit does not return its wallet; upgrade it at Bybit")
        if self.margin_mode == "ISOLATED_MARGIN":
            found.append("margin is isolated, so Bybit's account-wide margin figures do not apply")
        return found
