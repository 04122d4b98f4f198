"""Access control of signed requests: signatures, permissions and rate limits."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from hedgelock_ingest.sandbox.exchange.account.sent_messages import AccountHistory
from hedgelock_ingest.sandbox.exchange.account.state import AccountState
from hedgelock_ingest.sandbox.exchange.clock import ExchangeClock
from hedgelock_ingest.sandbox.exchange.faults.lag import Replica
from hedgelock_ingest.sandbox.exchange.keys import ApiKey, find_key
from hedgelock_ingest.sandbox.exchange.rest.envelope import RequestRefused, enveloped

_MAX_AHEAD_MS = 1_000
_RATE_LIMIT_EXCEEDED = RequestRefused(10006, "Too many visits. Exceeded the API Rate Limit.")

type Answer = Callable[[AccountState, Mapping[str, str], ApiKey], dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """
    One signed path.

    `answer` is given the state of the account that the answer is made of. `area` is the permission it requires;
    None requires none. `per_s` is its limit for one user; None is no limit.
    """

    path: str
    answer: Answer
    per_s: int | None = 50
    area: str | None = None
    ret_msg: str = "OK"
    is_bare: bool = False
    is_public: bool = False
    is_in_demo: bool = True


class RollingLimit:
    """At most so many events in any second. Source: Bybit V5, Rate limit."""

    def __init__(self, per_s: int) -> None:
        self.per_s = per_s
        self._taken_ms: deque[int] = deque()

    def take(self, now_ms: int) -> bool:
        """Count an event if the limit allows it; return whether it does."""
        while self._taken_ms and now_ms - self._taken_ms[0] >= 1_000:
            self._taken_ms.popleft()
        if len(self._taken_ms) >= self.per_s:
            return False
        self._taken_ms.append(now_ms)
        return True

    def headers(self, now_ms: int, *, is_exceeded: bool) -> dict[str, str]:
        """Return Bybit's headers; the reset is about now while the limit is not exceeded."""
        reset_ms = self._taken_ms[0] + 1_000 if is_exceeded and self._taken_ms else now_ms
        return {
            "X-Bapi-Limit": str(self.per_s),
            "X-Bapi-Limit-Status": str(max(self.per_s - len(self._taken_ms), 0)),
            "X-Bapi-Limit-Reset-Timestamp": str(reset_ms),
        }


class AccessControl:
    """
    Checks every signed request as Bybit does: headers, key, time, signature, address, permission, rate.

    The limits are those of the one account that all keys belong to.
    """

    def __init__(
        self, clock: ExchangeClock, history: AccountHistory, replica: Replica, per_s: Mapping[str, int]
    ) -> None:
        self._clock = clock
        self._history = history
        self._replica = replica
        self._per_s = per_s
        self._started_ms = clock.now_ms()
        self._limits: dict[str, RollingLimit] = {}

    def route(self, endpoint: Endpoint) -> web.RouteDef:
        """Return the route of an endpoint, with all checks."""
        return web.get(endpoint.path, self._guarded(endpoint))

    def has_expired(self, key: ApiKey) -> bool:
        """Return whether a key's days are over."""
        return key.has_expired(self._started_ms, self._clock.now_ms())

    def describe(self, key: ApiKey) -> dict[str, Any]:
        """Return the result of `/v5/user/query-api`."""
        return key.row(self._started_ms, self._clock.now_ms())

    def _guarded(self, endpoint: Endpoint) -> Handler:
        limit = self._limit(endpoint)

        async def handle(request: web.Request) -> web.StreamResponse:
            now_ms = self._clock.now_ms()
            if endpoint.is_public and "X-BAPI-API-KEY" not in request.headers:
                state, _ = self._replica.read(endpoint.path)
                return enveloped(endpoint.answer(state, request.query, _UNSIGNED), now_ms, ret_msg=endpoint.ret_msg)
            if "X-BAPI-API-KEY" not in request.headers or "X-BAPI-SIGN" not in request.headers:
                return web.Response(status=401)
            is_exceeded = False
            try:
                key = self._checked(request, endpoint, now_ms)
                is_exceeded = limit is not None and not limit.take(now_ms)
                if is_exceeded:
                    raise _RATE_LIMIT_EXCEEDED
                state, answered_ms = self._replica.read(endpoint.path)
                result = endpoint.answer(state, request.query, key)
            except RequestRefused as refused:
                answer = enveloped({}, now_ms, ret_code=refused.ret_code, ret_msg=refused.ret_msg)
            else:
                self._history.answer(answered_ms, endpoint.path, request.query, result)
                answer = enveloped(result, answered_ms, ret_msg=endpoint.ret_msg, is_bare=endpoint.is_bare)
            if limit is not None:
                answer.headers.update(limit.headers(now_ms, is_exceeded=is_exceeded))
            return answer

        return handle

    def _limit(self, endpoint: Endpoint) -> RollingLimit | None:
        per_s = self._per_s.get(endpoint.path, endpoint.per_s)
        return None if per_s is None else RollingLimit(per_s)

    def _checked(self, request: web.Request, endpoint: Endpoint, now_ms: int) -> ApiKey:
        headers = request.headers
        key = find_key(headers["X-BAPI-API-KEY"])
        if key is None:
            raise RequestRefused(10003, "API key is invalid.")
        timestamp, recv_window = headers.get("X-BAPI-TIMESTAMP", ""), headers.get("X-BAPI-RECV-WINDOW", "5000")
        if not timestamp.isdigit() or not recv_window.isdigit():
            raise RequestRefused(10001, "Request parameter error.")
        if not now_ms - int(recv_window) <= int(timestamp) < now_ms + _MAX_AHEAD_MS:
            raise RequestRefused(10002, late_text(timestamp, now_ms, recv_window))
        # The raw query as received: a decoded one would accept what Bybit refuses.
        query = request.raw_path.partition("?")[2]
        signed = f"{timestamp}{key.api_key}{recv_window}{query}"
        if not key.signs(signed, headers["X-BAPI-SIGN"]):
            raise RequestRefused(10004, f"error sign! origin_string[{signed}]")
        if not key.accepts(request.remote):
            raise RequestRefused(10010, "Unmatched IP, please check your API key's bound IP addresses.")
        if self.has_expired(key):
            raise RequestRefused(33004, "Your api key has expired.")
        if key.is_demo and not endpoint.is_in_demo:
            raise RequestRefused(10032, "Demo trading are not supported.")
        if endpoint.area is not None and not key.row(0, 0)["permissions"][endpoint.area]:
            raise RequestRefused(10005, "Permission denied, please check your API key permissions.")
        return key


def late_text(timestamp: str, now_ms: int, recv_window: str) -> str:
    """Return Bybit's text for a request whose time is outside its window."""
    return (
        "invalid request, please check your server timestamp or recv_window param. "
        f"req_timestamp[{timestamp}],server_timestamp[{now_ms}],recv_window[{recv_window}]"
    )


_UNSIGNED = ApiKey("unsigned")
