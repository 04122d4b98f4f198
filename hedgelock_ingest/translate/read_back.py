"""Polls that another process made and published, read from `account_raw`."""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

import msgspec

from hedgelock_ingest.models.times import unix_ms
from hedgelock_ingest.protocol.messages import DECODE_ERRORS
from hedgelock_ingest.protocol.rest_messages import TRANSFERABLE, LoanRow, Part, Purpose, RestAnswer
from hedgelock_ingest.translate.account_values import BYBIT_NAMES

_PARTS = {"rest:collateral": Part.COLLATERAL, "rest:loans": Part.LOANS, "rest:wallet": Part.WALLET}

type _Figures = dict[str, str | bool | None]


class _PolledBalance(msgspec.Struct):
    coin: str
    wallet_balance: str
    available_balance: str | None = None


class _Collateral(msgspec.Struct):
    ltv: str | None
    collateral_value: str
    borrowed_amount: str


class _Polled(msgspec.Struct):
    timestamp: datetime
    account_id: str
    origin: str
    trace_id: UUID | None = None
    balances: dict[str, _PolledBalance] | None = None
    balances_detail: dict[str, _Figures] | None = None
    margin: _Figures | None = None
    collateral_info: _Collateral | None = None
    loan_info: dict[str, list[LoanRow] | None] | None = None


_decode = msgspec.json.Decoder(_Polled).decode


def read_back(value: bytes, account_id: str) -> RestAnswer | None:
    """
    Rebuild the REST answer behind a record of `account_raw`: of its parts, the one that its origin names.

    Returns None for records that no poll of this account made, and for records of other programs.
    """
    try:
        polled = _decode(value)
    except DECODE_ERRORS:
        return None
    part = _PARTS.get(polled.origin)
    if part is None or polled.account_id != account_id or polled.timestamp.tzinfo is None:
        return None
    result = _result(part, polled)
    if result is None:
        return None
    results = {name: msgspec.Raw(msgspec.json.encode(each)) for name, each in result.items()}
    trace_id = "" if polled.trace_id is None else str(polled.trace_id)
    is_whole = part is not Part.WALLET or _has_new_coins_only(polled)
    at_ms = unix_ms(polled.timestamp)
    return RestAnswer(part, Purpose.READ_BACK, at_ms, results, trace_id=trace_id, is_whole=is_whole)


def _result(part: Part, polled: _Polled) -> dict[str, object] | None:
    match part:
        case Part.LOANS:  # earlier versions, and other programs, may not give the rows
            return {kind: {"list": rows} for kind, rows in (polled.loan_info or {}).items() if rows is not None}
        case Part.WALLET:
            return None if polled.balances is None else _wallet(polled, polled.balances)
        case _:
            return None if polled.collateral_info is None else {"position": _position(polled.collateral_info)}


def _position(figures: _Collateral) -> dict[str, object]:
    return {
        "borrowList": [],
        "collateralList": [],
        "ltv": figures.ltv or "",
        "totalCollateral": figures.collateral_value,
        "totalDebt": figures.borrowed_amount,
    }


def _wallet(polled: _Polled, balances: Mapping[str, _PolledBalance]) -> dict[str, object]:
    """Rebuild a list of the wallet from what is as new as the record; the rest of it was known before."""
    at = polled.timestamp
    details: Mapping[str, _Figures] = polled.balances_detail or {}
    coins = [_coin(balance, details.get(name)) for name, balance in balances.items() if _is_new(details.get(name), at)]
    available = {
        name: detail["available_balance"]
        for name, detail in details.items()
        if detail.get("available_balance") is not None and _is_of(detail.get("available_balance_at"), at)
    }
    wallet = {"list": [{**_named(polled.margin or {}), "coin": coins}]}
    return {"wallet": wallet} | ({TRANSFERABLE: {"availableWithdrawalMap": available}} if available else {})


def _has_new_coins_only(polled: _Polled) -> bool:
    """Return whether no balance is older than the poll, as one is whose row could not be decoded."""
    details = polled.balances_detail or {}
    return all(_is_new(details.get(name), polled.timestamp) for name in polled.balances or ())


def _is_new(detail: _Figures | None, at: datetime) -> bool:
    return detail is None or _is_of(detail.get("as_of"), at)


def _coin(balance: _PolledBalance, detail: _Figures | None) -> dict[str, str | bool]:
    coin: dict[str, str | bool] = {"coin": balance.coin, "walletBalance": balance.wallet_balance}
    if detail is None:  # of an earlier version
        return coin | {"availableToWithdraw": balance.available_balance or ""}
    return coin | _named(detail)


def _named(figures: _Figures) -> dict[str, str | bool]:
    """Return figures under Bybit's names, empty where they are null."""
    named = {BYBIT_NAMES[name]: value for name, value in figures.items() if name in BYBIT_NAMES}
    return {name: "" if value is None else value for name, value in named.items()}


def _is_of(text: str | bool | None, at: datetime) -> bool:
    try:
        return isinstance(text, str) and datetime.fromisoformat(text) == at
    except (ValueError, TypeError):
        return False
