"""Error codes of Bybit's REST: which are worth a retry, and what an operator can do about the others."""

from hedgelock_ingest.errors import ClockRefused, RestError, RestLimited, RestRefused, RestUnavailable

ADDRESS_BLOCKED_S = 600.0
"""Pause after HTTP 403, which blocks our IP address. Source: Bybit V5, Rate Limit Rules, "IP Limit"."""

LIMITED_S = 1.0
"""Window of the per-user limits, used when no header gives the reset time."""

PARAMETER_WRONG = 10001
"""Also the code of a symbol that Bybit does not know."""

PERMISSION_MISSING = 10005

KEY_CODES = frozenset({401, 10003, 10004, 10005, 10007, 10008, 10009, 10010, 10024, 33004, -2015})
"""Codes that mean a refused key when it requests its own information. Source: Bybit V5, Error Codes."""

NOT_IN_DEMO_TRADING = 10032
"""Code of what demo trading does not offer: the description of a key, crypto loans."""

NOT_FOR_THIS_ACCOUNT = frozenset({404, 10005, 10017, 10024, 10028, 10029, 100028})
"""Codes of an endpoint that does not exist, or is not available to this account or key."""

_CLOCK = frozenset({-1, 10002})
_BUSY = frozenset({429, 10000, 10016, 10019})
_LIMITED = 10006
_ADDRESS_BLOCKED = 10018

_ADVICE = {
    401: "Bybit rejects the API key: check BYBIT_API_KEY and BYBIT_API_SECRET",
    404: "Bybit has no such URL: check BYBIT_REST_URL",
    PARAMETER_WRONG: "Bybit rejects a parameter of the request",
    10003: "the API key is not valid here: it belongs to another environment (see BYBIT_TESTNET) or was deleted",
    10004: "the signature is wrong: BYBIT_API_SECRET does not belong to BYBIT_API_KEY",
    10005: "the API key lacks a permission",
    10007: "Bybit rejects the API key: check BYBIT_API_KEY and BYBIT_API_SECRET",
    10008: "Bybit has banned the account: ask its support",
    10009: "Bybit does not serve this region",
    10010: "the API key is bound to other IP addresses: add this machine's at Bybit, or create a key for it",
    10017: "Bybit has no such endpoint: check BYBIT_REST_URL",
    10024: "Bybit's compliance rules forbid this request for the account: ask its support",
    10028: "only unified accounts may send this request",
    NOT_IN_DEMO_TRADING: "Bybit's demo trading does not offer this",
    33004: "the API key has expired: create a new one at Bybit",
    100028: "unified accounts may not send this request",
    -2015: "the API key has expired: create a new one at Bybit",
}


def error_for_code(code: int, message: str, *, wait_s: float = LIMITED_S) -> RestError:
    """
    Return the error for a `retCode` other than 0.

    Args:
        code: Bybit's `retCode`.
        message: Bybit's `retMsg`, free of secrets; used for codes without a text of ours.
        wait_s: Seconds until the limit is lifted, if the code is about a limit.

    Source: Bybit V5, Error Codes.
    """
    if code in _CLOCK:
        return ClockRefused(f"Bybit refuses the timestamp of our requests ({code}); synchronise the clock (NTP)")
    if code in _BUSY:
        return RestUnavailable(f"Bybit is busy ({code}); it is tried again")
    if code == _LIMITED:
        return RestLimited(f"too many requests for Bybit's limit of this endpoint ({code})", wait_s=wait_s)
    if code == _ADDRESS_BLOCKED:
        return address_blocked()
    return RestRefused(f"{_ADVICE.get(code, f'Bybit refuses the request: {message}')} ({code})", code=code)


def is_refused_unread(status: int) -> bool:
    """Return whether an HTTP status decides, whatever the body: it is from a server in front of Bybit's."""
    return status in {403, 407, 429} or status >= 500


def error_for_status(status: int, answer: str, *, is_foreign: bool = False) -> RestError:
    """
    Return the error for an HTTP answer without Bybit's code.

    Args:
        status: The HTTP status; also 200, for a page in place of JSON.
        answer: What was answered, and the action, free of secrets.
        is_foreign: Whether another server than Bybit's has answered, such as a log-in page of the network.
    """
    if status == 403:
        return RestLimited(f"{answer}; {_PAUSE}", wait_s=ADDRESS_BLOCKED_S)
    # A page of 404 is final, too: Bybit's edge answers so where an endpoint does not exist.
    if status == 404 or (status in {400, 401} and not is_foreign):
        text = f"{_ADVICE[401]} (HTTP 401)" if status == 401 else answer
        return RestRefused(text, code=status)
    return RestUnavailable(answer)


_PAUSE = f"no request is sent for {ADDRESS_BLOCKED_S / 60:.0f} minutes"


def address_blocked() -> RestLimited:
    """Return the error for a code that means what HTTP 403 does."""
    return RestLimited(
        f"Bybit blocks this IP address: too many requests, or a country that it does not serve; {_PAUSE}",
        wait_s=ADDRESS_BLOCKED_S,
    )
