"""The account's kind and margin mode, and their consequences for its figures."""

import msgspec

_NOT_UNIFIED = 1


class AccountInformation(msgspec.Struct, frozen=True):
    """
    The account's kind and margin mode.

    Source: Bybit V5, Account, Get Account Info.
    """

    unifiedMarginStatus: int
    marginMode: str

    @property
    def concerns(self) -> list[str]:
        """Warnings for the operator; empty when all figures apply to this account."""
        found = []
        if self.unifiedMarginStatus == _NOT_UNIFIED:
            found.append("the account is not a unified one, so Bybit does not return its wallet; upgrade it at Bybit")
        if self.marginMode == "ISOLATED_MARGIN":
            found.append("margin is isolated, so Bybit's account-wide margin figures do not apply")
        return found
