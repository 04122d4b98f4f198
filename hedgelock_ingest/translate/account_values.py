"""The values of `account_raw` and `account-updates`, from the state of the account."""

import re
from collections.abc import Container, Mapping
from decimal import Decimal
from typing import Final

from hedgelock_ingest.protocol.loans import collateral_figures
from hedgelock_ingest.protocol.private_messages import AccountFigures, WalletCoin
from hedgelock_ingest.translate.formatting import iso
from hedgelock_ingest.translate.positions import is_open
from hedgelock_ingest.translate.state import AccountState, Coin, Figures

_DIGITS: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_MARGIN_NAMES: Final = {
    "totalEquity": "total_equity",
    "totalWalletBalance": "total_wallet_balance",
    "totalMarginBalance": "total_margin_balance",
    "totalAvailableBalance": "total_available_balance",
    "totalPerpUPL": "total_perp_upl",
    "totalInitialMargin": "total_initial_margin",
    "totalMaintenanceMargin": "total_maintenance_margin",
    "accountIMRate": "account_im_rate",
    "accountMMRate": "account_mm_rate",
}
_DETAIL_NAMES: Final = {
    "equity": "equity",
    "usdValue": "usd_value",
    "unrealisedPnl": "unrealised_pnl",
    "borrowAmount": "borrow_amount",
    "accruedInterest": "accrued_interest",
    "locked": "locked",
}
_SWITCH_NAMES: Final = {"collateralSwitch": "collateral_switch", "marginCollateral": "margin_collateral"}

BYBIT_NAMES: Final = {published: name for name, published in (_MARGIN_NAMES | _DETAIL_NAMES | _SWITCH_NAMES).items()}
"""Bybit's name of each published figure."""


def margin_of(account: AccountFigures) -> Figures | None:
    """Return an account's figures under the published names; None if its row has none of them."""
    if all(getattr(account, name) is None for name in _MARGIN_NAMES):
        return None
    return {published: _digits(getattr(account, name)) for name, published in _MARGIN_NAMES.items()}


def detail_of(coin: WalletCoin) -> Figures:
    """Return a coin's figures under the published names."""
    figures: Figures = {published: _digits(getattr(coin, name)) for name, published in _DETAIL_NAMES.items()}
    switches = {published: getattr(coin, name) for name, published in _SWITCH_NAMES.items()}
    return figures | {name: switch if isinstance(switch, bool) else None for name, switch in switches.items()}


def raw_parts(state: AccountState, reported_positions: Container[str]) -> dict[str, object]:
    """
    Return all parts of `account_raw` as last known, and when each was; None for a part that was never seen.

    Args:
        state: The account.
        reported_positions: Keys of the positions that are shown although they may be flat.
    """
    has_balances, has_positions = "wallet" in state.seen_ms, "positions" in state.seen_ms
    positions = [
        state.positions_repeated.get(key, position)
        for key, position in state.positions.items()
        if is_open(position) or key in reported_positions
    ]
    others = {account_type: _raw_balances(coins) for account_type, coins in state.other_coins.items()}
    return {
        "balances": _raw_balances(state.coins) if has_balances else None,
        "positions": positions if has_positions else None,
        "collateral_info": None if state.loan is None else _collateral_info(state.loan),
        "loan_info": state.loans,
        "other_balances": others or None,
        "margin": state.margin,
        "balances_detail": balances_detail(state.coins) if has_balances else None,
        "as_of": {
            "balances": _seen(state, "wallet"),
            "positions": _seen(state, "positions"),
            "collateral_info": None if state.loan is None else _seen(state, "collateral"),
            "loan_info": None if state.loans is None else _seen(state, "loans"),
        },
    }


def balances_detail(coins: Mapping[str, Coin]) -> dict[str, Figures]:
    """Return what else is known of each coin."""
    return {name: _detail(coin) for name, coin in coins.items()}


def _raw_balances(coins: Mapping[str, Coin]) -> dict[str, dict[str, str | None]]:
    return {
        name: {"coin": name, "wallet_balance": coin.wallet, "available_balance": coin.available}
        for name, coin in coins.items()
    }


def _detail(coin: Coin) -> Figures:
    unknown: Figures = dict.fromkeys([*_DETAIL_NAMES.values(), *_SWITCH_NAMES.values()])
    return {
        **(coin.detail or unknown),
        "available_balance": coin.available,
        "available_balance_at": iso(coin.available_ms) if coin.available_ms else None,
        "as_of": iso(coin.at_ms) if coin.at_ms else None,
    }


def _collateral_info(loan: Mapping[str, str]) -> dict[str, str | None]:
    collateral_value, debt = loan["collateral_value"], loan["loan_amount"]
    ratio, free = collateral_figures(Decimal(collateral_value), Decimal(debt))
    return {
        "ltv": loan["ltv"],
        "collateral_value": collateral_value,
        "borrowed_amount": debt,
        "collateral_ratio": None if ratio is None else format(ratio, "f"),
        "free_collateral": format(free, "f"),
    }


def _seen(state: AccountState, part: str) -> str | None:
    return iso(state.seen_ms[part]) if part in state.seen_ms else None


def _digits(value: object) -> str | None:
    return value if isinstance(value, str) and _DIGITS.fullmatch(value) else None
