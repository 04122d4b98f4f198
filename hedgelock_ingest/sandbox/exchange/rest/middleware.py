"""Middleware of the REST interface: the limit of an address, faults, and the envelope of refusals."""

import time
from collections import deque

from aiohttp import web
from aiohttp.typedefs import Handler

from hedgelock_ingest.sandbox.exchange.clock import ExchangeClock
from hedgelock_ingest.sandbox.exchange.faults.rest import RestFault, forbidden
from hedgelock_ingest.sandbox.exchange.rest.envelope import RequestRefused, enveloped

_ROUTE_NOT_FOUND = 10017
_WINDOW_S = 5.0


class AddressLimit:
    """At most so many requests of an address in five seconds; one with more is refused for `ban_s`."""

    def __init__(self, per_5_s: int, ban_s: float) -> None:
        self._per_5_s = per_5_s
        self._ban_s = ban_s
        self._requests_s: dict[str, deque[float]] = {}
        self._banned_until: dict[str, float] = {}

    def exceeds(self, address: str) -> bool:
        """Count a request, and return whether its address is refused."""
        now_s = time.monotonic()
        times_s = self._requests_s.setdefault(address, deque())
        while times_s and now_s - times_s[0] > _WINDOW_S:
            times_s.popleft()
        times_s.append(now_s)
        if len(times_s) > self._per_5_s:
            self._banned_until[address] = now_s + self._ban_s
        return now_s < self._banned_until.get(address, 0.0)


class RestMiddleware:
    """
    Middleware of every request, signed or not.

    `of_all` limits the requests of an address, `of_public` the unsigned ones among them; the limits of signed ones
    are the user's. `faults` apply in their order. Source: Bybit V5, Rate limit.
    """

    def __init__(
        self, clock: ExchangeClock, faults: list[RestFault], *, of_all: AddressLimit, of_public: AddressLimit
    ) -> None:
        self._clock = clock
        self._faults = faults
        self._of_all = of_all
        self._of_public = of_public

    @web.middleware
    async def answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer a request, with a fault or a refusal if one applies."""
        is_rest = request.path.startswith("/v5/") and "Upgrade" not in request.headers
        if is_rest and self._exceeds_limit(request):
            return forbidden()
        fault = self._fault(request.path) if is_rest else None
        if fault is None:
            return await self._answer(request, handler)
        return await fault.answer(lambda: self._answer(request, handler), self._clock)

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except RequestRefused as refused:
            return enveloped({}, self._clock.now_ms(), ret_code=refused.ret_code, ret_msg=refused.ret_msg)
        except web.HTTPNotFound:
            if not request.path.startswith("/v5/"):
                raise
            # Bybit answers an unknown path with HTTP 404 (Error codes, "HTTP code").
            answer = enveloped({}, self._clock.now_ms(), ret_code=_ROUTE_NOT_FOUND, ret_msg="Route not found.")
            answer.set_status(404)
            return answer

    def _fault(self, path: str) -> RestFault | None:
        return next((fault for fault in self._faults if fault.strikes(path)), None)

    def _exceeds_limit(self, request: web.Request) -> bool:
        address = request.remote or ""
        is_public = "X-BAPI-API-KEY" not in request.headers
        # Both count the request, so neither may be skipped.
        exceeds_public = is_public and self._of_public.exceeds(address)
        return self._of_all.exceeds(address) or exceeds_public
