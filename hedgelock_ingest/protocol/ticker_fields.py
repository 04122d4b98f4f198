"""
The ticker fields that we use, and their format: all are strings, empty where there is no value.

Source: Bybit V5, WebSocket Stream, Public, Ticker.
"""

import re

from hedgelock_ingest.errors import FrameError

LAST_MS = 253_402_300_799_999
"""The last millisecond of the year 9999."""

NUMBERS = frozenset(
    {
        "lastPrice",
        "volume24h",
        "bid1Price",
        "ask1Price",
        "bid1Size",
        "ask1Size",
        "markPrice",
        "indexPrice",
        "fundingRate",
        "fundingIntervalHour",
        "fundingCap",
        "openInterest",
        "openInterestValue",
        "singleOpenInterest",
        "singleOpenInterestValue",
        "turnover24h",
        "highPrice24h",
        "lowPrice24h",
        "prevPrice24h",
        "prevPrice1h",
        "price24hPcnt",
        "usdIndexPrice",
        "preOpenPrice",
        "preQty",
        "basis",
        "basisRate",
        "basisRateYear",
        "deliveryFeeRate",
        "predictedDeliveryPrice",
    }
)
TEXTS = frozenset({"tickDirection", "curPreListingPhase", "deliveryTime"})
TIMES = frozenset({"nextFundingTime"})
REQUIRED = ("lastPrice", "volume24h", "bid1Price", "ask1Price")
"""The fields that every ticker has, empty where there is no value; spot tickers have the last two in REST only."""
ROLLING = frozenset(
    {
        "highPrice24h",
        "lowPrice24h",
        "prevPrice24h",
        "prevPrice1h",
        "price24hPcnt",
        "turnover24h",
        "volume24h",
    }
)
"""The fields about the last day or hour, which change as it passes."""

_NOT_NUMBERS = TEXTS | TIMES

_NUMBERS_AND_BLANKS = re.compile(r"(?:-?+[0-9]++(?:\.[0-9]++)?+(?: |\Z)| )*+")
_MILLISECONDS = re.compile(r"[0-9]{1,15}")


def check_ticker(fields: dict[str, object]) -> None:
    """
    Check the fields that we use; other fields are ignored.

    Raises:
        FrameError: A field is not a string, not a number, or not a time.
    """
    numbers = [value for name, value in fields.items() if name in NUMBERS]
    if not _are_numbers(numbers):
        wrong = next(name for name in fields if name in NUMBERS and not _are_numbers([fields[name]]))
        raise FrameError(f"expected a decimal number as `str` - at `$.data.{wrong}`")
    if _NOT_NUMBERS.isdisjoint(fields):
        return
    for name in _NOT_NUMBERS.intersection(fields):
        value = fields[name]
        if type(value) is not str:
            raise FrameError(f"expected `str` - at `$.data.{name}`")
        if name in TIMES and not _is_time(value):
            raise FrameError(f"expected milliseconds since 1970 as `str` - at `$.data.{name}`")


def _are_numbers(values: list[object]) -> bool:
    # One match over all values is several times faster than one for each.
    try:
        joined = " ".join(values)  # type: ignore[arg-type]
    except TypeError:
        return False
    return joined.count(" ") == max(len(values) - 1, 0) and _NUMBERS_AND_BLANKS.fullmatch(joined) is not None


def _is_time(value: str) -> bool:
    return value == "" or (_MILLISECONDS.fullmatch(value) is not None and int(value) <= LAST_MS)
