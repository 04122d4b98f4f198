"""The signed endpoints of the account: wallets, transferable amounts, margin settings, the key and its coins."""

from collections.abc import Mapping
from typing import Any

from hedgelock_ingest.sandbox.exchange.account.amounts import text
from hedgelock_ingest.sandbox.exchange.account.loan_terms import HOURLY_RATES
from hedgelock_ingest.sandbox.exchange.account.state import AccountState
from hedgelock_ingest.sandbox.exchange.account.wallet import CONTRACT, UNIFIED, CoinHolding
from hedgelock_ingest.sandbox.exchange.keys import ApiKey
from hedgelock_ingest.sandbox.exchange.rest.access_control import AccessControl, Endpoint
from hedgelock_ingest.sandbox.exchange.rest.envelope import PARAMETER_ERROR, RequestRefused
from hedgelock_ingest.sandbox.exchange.rest.pages import required

_COINS_ASKED = 20


class AccountEndpoints:
    """`/v5/account/…`, key and coin information."""

    def __init__(self, access: AccessControl) -> None:
        self._access = access

    def endpoints(self) -> list[Endpoint]:
        """Return the endpoints, with Bybit's limits."""
        return [
            Endpoint(path="/v5/account/wallet-balance", answer=_wallet_balance),
            Endpoint(path="/v5/account/withdrawal", answer=_transferable),
            Endpoint(path="/v5/account/info", answer=_account_info, is_bare=True),
            Endpoint(path="/v5/account/collateral-info", answer=_collateral_info),
            Endpoint(path="/v5/user/query-api", answer=self._key, per_s=10, ret_msg="", is_in_demo=False),
            Endpoint(path="/v5/asset/coin/query-info", answer=_coin_info, per_s=5, ret_msg=""),
        ]

    def _key(self, state: AccountState, query: Mapping[str, str], key: ApiKey) -> dict[str, Any]:
        return self._access.describe(key)


def _wallet_balance(state: AccountState, query: Mapping[str, str], key: ApiKey) -> dict[str, Any]:
    account_type = required(query, "accountType")
    if account_type not in state.account_types:
        raise RequestRefused(PARAMETER_ERROR, f"accountType only support {','.join(state.account_types)}.")
    row = state.wallet(account_type=account_type)
    names = query["coin"].split(",") if query.get("coin") else None
    if names is None:
        row["coin"] = [coin for coin in row["coin"] if (coin["equity"], coin["borrowAmount"] or "0") != ("0", "0")]
    elif account_type == UNIFIED:
        row["coin"] = state.coin_rows(names)
    else:
        row["coin"] = [coin for coin in row["coin"] if coin["coin"] in names]
    return {"list": [row]}


def _transferable(state: AccountState, query: Mapping[str, str], key: ApiKey) -> dict[str, Any]:
    names = required(query, "coinName").split(",")
    if len(names) > _COINS_ASKED or any(not name or name != name.upper() for name in names):
        raise RequestRefused(PARAMETER_ERROR, "params error: coinName is invalid")
    found = state.transferable(names)
    return {"availableWithdrawal": found[names[0]], "availableWithdrawalMap": found}


def _account_info(state: AccountState, query: Mapping[str, str], key: ApiKey) -> dict[str, Any]:
    return {
        "marginMode": "REGULAR_MARGIN",
        "updatedTime": "1697078946000",
        # 3 is UTA 1.0, 5 is UTA 2.0, which has one wallet only.
        "unifiedMarginStatus": 3 if CONTRACT in state.account_types else 5,
        "dcpStatus": "OFF",
        "timeWindow": 10,
        "smpGroup": 0,
        "isMasterTrader": False,
        "spotHedgingStatus": "OFF",
    }


def _collateral_info(state: AccountState, query: Mapping[str, str], key: ApiKey) -> dict[str, Any]:
    rows = []
    for coin, rate in HOURLY_RATES.items():
        if query.get("currency") not in (None, "", coin):
            continue
        holding = state.coins.get(coin, CoinHolding())
        rows.append(
            {
                "availableToBorrow": "0",
                "freeBorrowingLimit": "",
                "freeBorrowAmount": "0",
                "maxBorrowingAmount": "0",
                "hourlyBorrowRate": text(rate),
                "borrowUsageRate": "0",
                "collateralSwitch": holding.is_collateral,
                "borrowAmount": text(holding.borrowed),
                "otherBorrowAmount": "0",
                "borrowable": True,
                "currency": coin,
                "marginCollateral": True,
                "collateralRatio": "1",
            }
        )
    return {"list": rows}


def _coin_info(state: AccountState, query: Mapping[str, str], key: ApiKey) -> dict[str, Any]:
    rows = [
        {"name": coin, "coin": coin, "remainAmount": "150", "chains": []}
        for coin in state.coins
        if query.get("coin") in (None, "", coin)
    ]
    return {"rows": rows}
