"""REST session with Bybit: rate limit, Bybit's clock, retries, and a circuit breaker."""

import asyncio
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt

from hedgelock_ingest.bybit.rest_port import Credentials, Http, OpenHttp, RestRequest, RestResponse, RestTiming
from hedgelock_ingest.clock import Clock, wall_ms
from hedgelock_ingest.errors import ClockRefused, RestError, RestLimited, RestUnavailable
from hedgelock_ingest.protocol.circuit_breaker import BreakerState, CircuitBreaker
from hedgelock_ingest.protocol.rate_limits import PUBLIC_REQUESTS_PER_SECOND, RateLimit
from hedgelock_ingest.protocol.server_clock import ServerClock

log = structlog.get_logger(__name__)

_PROOF_HOLDS_S = 1.0
"""The channels of a line come up one after the other: the first of them renews the connections for all."""

_TIME = RestRequest("get_server_time", {}, is_signed=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RestStatus:
    """Status of REST for health and statistics; `clock_ahead_s` is how far our clock is ahead of Bybit's."""

    state: BreakerState
    reason: str | None
    openings: int
    requests: int
    failures: int
    clock_ahead_s: float | None


class _Queue(NamedTuple):
    """A limit, and the lock of the request that is next; others wait for the lock in their order."""

    limit: RateLimit
    lock: asyncio.Lock


class RestSession:
    """
    Sends requests to one address with one key; all methods run in one event loop.

    Each request uses an HTTP session exclusively. Requests about the account and public ones have separate limits:
    Bybit counts the former by account and the latter by address.
    """

    def __init__(
        self,
        url: str,
        credentials: Credentials | None,
        *,
        requests_per_second: float,
        clock: Clock,
        open_http: OpenHttp,
        timing: RestTiming | None = None,
        random: Random | None = None,
    ) -> None:
        """Prepare; nothing is connected."""
        self._clock = clock
        self._open_http = open_http
        self._random = random or Random()
        self.url = url
        self.has_key = credentials is not None
        self._credentials = credentials
        self._timing = timing or RestTiming()
        self._signed = _Queue(RateLimit(requests_per_second), asyncio.Lock())
        self._public = _Queue(RateLimit(PUBLIC_REQUESTS_PER_SECOND), asyncio.Lock())
        self._server_clock = ServerClock()
        self._breaker = CircuitBreaker(initial_delay_s=1.0, maximum_delay_s=10.0)
        self._open_until_s = float("-inf")
        self._is_banned = False
        self._probe: asyncio.Event | None = None
        self._proven_s = float("-inf")
        self._outage = 0
        self._measuring = asyncio.Lock()
        self._idle: list[Http] = []
        self._requests = 0
        self._failures = 0

    @property
    def status(self) -> RestStatus:
        """Current status."""
        now_s = self._clock.monotonic()
        ahead_s = (wall_ms(self._clock) - self.now_ms()) / 1000 if self._server_clock.is_known(now_s) else None
        return RestStatus(
            state=self._breaker.state(now_s),
            reason=self._breaker.why(now_s),
            openings=self._breaker.openings,
            requests=self._requests,
            failures=self._failures,
            clock_ahead_s=ahead_s,
        )

    def now_ms(self) -> int:
        """Return Bybit's time, or our clock's while it is unknown; may be called from any thread."""
        return self._server_clock.now_ms(self._clock.monotonic(), wall_ms(self._clock))

    async def send(self, request: RestRequest) -> RestResponse:
        """
        Send a request, with retries, and return Bybit's answer.

        Raises:
            RestError: Its `transient` states whether a later attempt may succeed.
        """
        probe, outage = await self._enter(request), self._outage
        try:
            retrying = AsyncRetrying(
                stop=stop_after_attempt(1 if probe or request.is_optional else self._timing.attempts),
                wait=self._wait_s,
                sleep=self._clock.sleep,
                retry=retry_if_exception(self._is_worth_another),
                reraise=True,
            )
            response: RestResponse = await retrying(self._send_once, request)
        except RestError as error:
            self._failures += 1
            self._note_failure(request, error, outage)
            raise
        finally:
            if probe is not None:
                self._end_probe(probe)
        self._note_answer()
        return response

    async def measure_clock(self) -> None:
        """
        Measure Bybit's clock.

        Raises:
            RestError: No usable answer.
        """
        sent_s = self._clock.monotonic()
        response = await self._send(_TIME)
        self._server_clock.measured(response.time_ms, sent_s=sent_s, received_s=self._clock.monotonic())

    def probe_now(self) -> None:
        """
        Send the next request although earlier ones failed, and by a new connection: Bybit can be reached again.

        Pending requests may hang in connections of the time before; their failures do not count any more. A limit that
        Bybit has imposed stays. Nothing changes within a second of an answer, or of the last call.
        """
        if self._clock.monotonic() < self._proven_s + _PROOF_HOLDS_S:
            return
        self._proven_s = self._clock.monotonic()
        self.close()
        self._measuring = asyncio.Lock()
        if not self._is_banned:
            self._outage += 1
            self._open_until_s = float("-inf")
            if self._probe is not None:
                self._end_probe(self._probe)

    def close(self) -> None:
        """Close idle connections; a pending request is left to its timeout."""
        while self._idle:
            self._idle.pop().close()

    async def _enter(self, request: RestRequest) -> asyncio.Event | None:
        """Refuse a request while the breaker is open; after that let one through as the probe, and others wait."""
        while self._breaker.failures:
            left_s = self._open_until_s - self._clock.monotonic()
            if left_s > 0 or request.is_optional:
                reason, wait_s = self._breaker.reason or "", max(left_s, 0.1)
                raise RestLimited(f"no REST request for another {wait_s:.0f} s: {reason}", wait_s=wait_s)
            if self._probe is None:
                self._breaker.probing()
                self._probe = asyncio.Event()
                return self._probe
            await self._probe.wait()
        return None

    def _end_probe(self, probe: asyncio.Event) -> None:
        probe.set()
        if self._probe is probe:
            self._probe = None

    def _note_answer(self) -> None:
        self._is_banned = False
        self._proven_s = self._clock.monotonic()
        if self._breaker.failures:
            log.warning("rest_recovered", after_failures=self._breaker.failures)
        self._breaker.succeeded()

    def _note_failure(self, request: RestRequest, error: RestError, outage: int) -> None:
        if isinstance(error, RestLimited):
            if error.wait_s <= self._timing.longest_wait_s:
                return
            self._breaker.failed(str(error))
            self._is_banned, wait_s = True, error.wait_s
            self.close()
        elif isinstance(error, RestUnavailable):
            if request.is_optional or outage != self._outage:
                return
            self._is_banned, wait_s = False, self._breaker.failed(str(error))
            self._proven_s = float("-inf")
        else:  # Bybit has answered
            self._note_answer()
            return
        self._open_until_s = self._clock.monotonic() + wait_s
        self._outage += 1  # requests that are pending count as part of this failure
        if self._breaker.failures == 1:
            log.error("rest_lost", request=request.method, cause=type(error).__name__, message=str(error))

    def _wait_s(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, RestLimited):
            return error.wait_s
        if isinstance(error, ClockRefused):
            return 0.0
        ceiling_s = min(self._timing.retry_max_s, self._timing.retry_initial_s * 2.0 ** (state.attempt_number - 1))
        return self._random.uniform(0.0, ceiling_s)

    def _is_worth_another(self, error: BaseException) -> bool:
        if isinstance(error, RestLimited):
            return error.wait_s <= self._timing.longest_wait_s
        return isinstance(error, RestError) and error.transient

    async def _send_once(self, request: RestRequest) -> RestResponse:
        if request.is_signed:
            async with self._measuring:
                if not self._server_clock.is_known(self._clock.monotonic()):
                    await self.measure_clock()
        try:
            response = await self._send(request)
        except ClockRefused as error:
            ahead_s = self.status.clock_ahead_s
            self._server_clock.forget()
            known = "" if ahead_s is None else f"; ours is {ahead_s:+.1f} s ahead of Bybit's"
            raise ClockRefused(f"{error}{known}") from error
        except RestLimited as error:
            self._queue(request).limit.hold(request.method, self._clock.monotonic() + error.wait_s)
            raise
        if response.limit.left == 0:
            wait_s = response.limit.wait_s(self.now_ms(), 1.0)
            self._queue(request).limit.hold(request.method, self._clock.monotonic() + wait_s)
        return response if response.time_ms else response._replace(time_ms=self.now_ms())

    async def _send(self, request: RestRequest) -> RestResponse:
        if request is not _TIME:  # all signed requests may wait for it
            await self._await_turn(request)
        self._requests += 1
        http = self._idle.pop() if self._idle else self._open()
        try:
            async with self._clock.timeout(self._timing.answer_timeout_s):
                response = await http.send(request)
        except TimeoutError as error:  # the request may still use the session
            raise RestUnavailable(
                f"no complete answer from {self.url} within {self._timing.answer_timeout_s:g} s"
            ) from error
        except RestError:
            self._idle.append(http)
            raise
        self._idle.append(http)
        return response

    async def _await_turn(self, request: RestRequest) -> None:
        """Wait until the limits allow the request; one that stops waiting uses no turn."""
        clock, (limit, lock) = self._clock, self._queue(request)
        while (held_s := limit.held_s(request.method, clock.monotonic())) > 0:
            await clock.sleep(held_s)
        async with lock:
            await clock.sleep(limit.wait_s(clock.monotonic()))
            limit.sent(clock.monotonic())

    def _queue(self, request: RestRequest) -> _Queue:
        return self._signed if request.is_signed else self._public

    def _open(self) -> Http:
        return self._open_http(self.url, self._credentials, now_ms=self.now_ms, timing=self._timing)
