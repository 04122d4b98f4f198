"""What Bybit's REST refuses with: which codes may be asked again, and what an operator can do about the others."""

from hedgelock_ingest.errors import ClockRefused, RestError, RestLimited, RestRefused, RestUnavailable

BARRED_S = 600.0
"""How long an address is to keep still after HTTP 403. Source: Bybit V5, Rate Limit Rules, "IP Limit"."""

LIMITED_S = 1.0
"""The window of limits by user, where no header says when it ends."""

PERMISSION_MISSING = 10005

KEY_CODES = frozenset({401, 10003, 10004, 10005, 10007, 10008, 10009, 10010, 10024, 33004, -2015})
"""The key itself is refused when it asks about itself. Source: Bybit V5, Error Codes."""

NOT_FOR_THIS_ACCOUNT = frozenset({404, 10005, 10017, 10024, 10028, 10029, 100028})
"""An endpoint is not there, or not for this account or key."""

_CLOCK = frozenset({-1, 10002})
_BUSY = frozenset({429, 10000, 10016, 10019})
_LIMITED = 10006
_BARRED = 10018

_ADVICE = {
    401: "Bybit does not take the key: check BYBIT_API_KEY and BYBIT_API_SECRET",
    404: "Bybit has no such address: check BYBIT_REST_URL",
    10001: "Bybit does not take a parameter",
    10003: "the API key is not valid here: it belongs to another environment (see BYBIT_TESTNET) or was deleted",
    10004: "the signature is wrong: BYBIT_API_SECRET does not belong to BYBIT_API_KEY",
    10005: "the API key lacks a permission",
    10007: "Bybit does not take the key: check BYBIT_API_KEY and BYBIT_API_SECRET",
    10008: "Bybit has banned the account: ask its support",
    10009: "Bybit does not serve this region",
    10010: "the API key is bound to other IP addresses: add this machine's at Bybit, or make a key for it",
    10017: "Bybit has no such endpoint: check BYBIT_REST_URL",
    10024: "Bybit's compliance rules forbid it for this account: ask its support",
    10028: "only unified accounts may ask this",
    33004: "the API key has expired: make a new one at Bybit",
    100028: "unified accounts may not ask this",
    -2015: "the API key has expired: make a new one at Bybit",
}


def error_for_code(code: int, message: str, *, wait_s: float = LIMITED_S) -> RestError:
    """
    Say what a `retCode` other than 0 means.

    Args:
        code: Bybit's.
        message: Bybit's `retMsg`, with nothing secret in it; used where we have no better words.
        wait_s: Until the limit is lifted, where the code is about one.

    Source: Bybit V5, Error Codes.
    """
    if code in _CLOCK:
        return ClockRefused(f"Bybit refuses the time of our requests ({code}); synchronise the clock (NTP)")
    if code in _BUSY:
        return RestUnavailable(f"Bybit is busy ({code})")
    if code == _LIMITED:
        return RestLimited(f"too many requests for Bybit's limit of this endpoint ({code})", wait_s=wait_s)
    if code == _BARRED:
        return barred()
    return RestRefused(f"{_ADVICE.get(code, f'Bybit refuses: {message}')} ({code})", code=code)


def error_for_status(status: int) -> RestError | None:
    """Say what an HTTP status means, None where the body decides."""
    if status == 403:
        return barred()
    if status == 429 or status >= 500:
        return RestUnavailable(f"Bybit answers HTTP {status}")
    return None


def error_without_code(status: int) -> RestError:
    """Say what an HTTP status other than 200 means when the body says nothing."""
    return RestRefused(f"{_ADVICE.get(status, 'Bybit does not take the request')} (HTTP {status})", code=status)


def barred() -> RestLimited:
    """Say what HTTP 403 means."""
    return RestLimited(
        "Bybit bars this address (HTTP 403): too many requests, or an address in a country that it does not serve; "
        f"nothing is asked for {BARRED_S / 60:.0f} minutes",
        wait_s=BARRED_S,
    )
