"""Polls that another process made and published, read from `account_raw`."""

from datetime import datetime

import msgspec

from hedgelock_ingest.models.times import unix_ms
from hedgelock_ingest.protocol.rest_messages import Part, Purpose, RestAnswer

_PARTS = {"rest:collateral": Part.COLLATERAL, "rest:loans": Part.LOANS, "rest:wallet": Part.WALLET}


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
    balances: dict[str, _PolledBalance] | None = None
    collateral_info: _Collateral | None = None


_decode = msgspec.json.Decoder(_Polled).decode


def read_back(value: bytes, account_id: str) -> RestAnswer | None:
    """
    Rebuild the REST answer behind a record of `account_raw`, as far as the account's state needs it.

    Returns None for records that no poll of this account made, and for records of other programs.
    """
    try:
        polled = _decode(value)
    except msgspec.DecodeError:
        return None
    part = _PARTS.get(polled.origin)
    if part is None or polled.account_id != account_id or polled.timestamp.tzinfo is None:
        return None
    result = _result(part, polled)
    if result is None:
        return None
    time_ms = unix_ms(polled.timestamp)
    results = {name: msgspec.Raw(msgspec.json.encode(each)) for name, each in result.items()}
    return RestAnswer(part, Purpose.READ_BACK, time_ms, results)


def _result(part: Part, polled: _Polled) -> dict[str, object] | None:
    if part is Part.LOANS:  # the state keeps only when loans were last seen
        return {}
    if part is Part.WALLET:
        return None if polled.balances is None else {"wallet": {"list": [{"coin": _coins(polled.balances)}]}}
    figures = polled.collateral_info
    if figures is None:
        return None
    return {
        "position": {
            "borrowList": [],
            "collateralList": [],
            "ltv": figures.ltv or "",
            "totalCollateral": figures.collateral_value,
            "totalDebt": figures.borrowed_amount,
        }
    }


def _coins(balances: dict[str, _PolledBalance]) -> list[dict[str, str]]:
    return [
        {
            "coin": balance.coin,
            "walletBalance": balance.wallet_balance,
            "availableToWithdraw": balance.available_balance or "",
        }
        for balance in balances.values()
    ]
