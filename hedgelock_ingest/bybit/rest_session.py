"""REST session with Bybit: rate limit, Bybit's clock, retries, and a circuit breaker."""

import asyncio
from dataclasses import dataclass
from random import Random

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt

from hedgelock_ingest.bybit.rest_port import Credentials, Http, OpenHttp, RestRequest, RestResponse, RestTiming
from hedgelock_ingest.clock import Clock, wall_ms
from hedgelock_ingest.errors import ClockRefused, RestError, RestLimited, RestUnavailable
from hedgelock_ingest.protocol.circuit_breaker import BreakerState, CircuitBreaker
from hedgelock_ingest.protocol.rate_limits import RateLimit
from hedgelock_ingest.protocol.server_clock import ServerClock

log = structlog.get_logger(__name__)

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


class RestSession:
    """
    Sends requests to one address with one key; all methods run in one event loop.

    Each request uses an HTTP session exclusively.
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
        self._limit = RateLimit(requests_per_second)
        self._server_clock = ServerClock()
        self._breaker = CircuitBreaker(initial_delay_s=1.0, maximum_delay_s=30.0)
        self._closed_until_s = float("-inf")
        self._is_probing = False
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
        is_probe = self._enter()
        try:
            retrying = AsyncRetrying(
                stop=stop_after_attempt(1 if is_probe else self._timing.attempts),
                wait=self._wait_s,
                sleep=self._clock.sleep,
                retry=retry_if_exception(self._is_worth_another),
                reraise=True,
            )
            response: RestResponse = await retrying(self._send_once, request)
        except RestError as error:
            self._note_failure(request, error)
            raise
        finally:
            self._is_probing = self._is_probing and not is_probe
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

    def close(self) -> None:
        """Close idle connections; a pending request is left to its timeout."""
        while self._idle:
            self._idle.pop().close()

    def _enter(self) -> bool:
        """Refuse a request while the breaker is open; return whether it is the probe after that, one at a time."""
        if not self._breaker.failures:
            return False
        left_s = self._closed_until_s - self._clock.monotonic()
        if left_s > 0 or self._is_probing:
            reason, wait_s = self._breaker.reason or "", max(left_s, 0.1)
            raise RestLimited(f"no REST request for another {wait_s:.0f} s: {reason}", wait_s=wait_s)
        self._breaker.probing()
        self._is_probing = True
        return True

    def _note_answer(self) -> None:
        if self._breaker.failures:
            log.warning("rest_recovered", after_failures=self._breaker.failures)
        self._breaker.succeeded()

    def _note_failure(self, request: RestRequest, error: RestError) -> None:
        self._failures += 1
        if isinstance(error, RestLimited):
            if error.wait_s <= self._timing.longest_wait_s:
                return
            self._breaker.failed(str(error))
            self._closed_until_s = self._clock.monotonic() + error.wait_s
            self.close()
        elif isinstance(error, RestUnavailable):
            self._closed_until_s = self._clock.monotonic() + self._breaker.failed(str(error))
        else:  # Bybit has answered
            self._note_answer()
            return
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
            self._limit.hold(request.method, self._clock.monotonic() + error.wait_s)
            raise
        if response.limit.left == 0:
            self._limit.hold(request.method, self._clock.monotonic() + response.limit.wait_s(self.now_ms(), 1.0))
        return response if response.time_ms else response._replace(time_ms=self.now_ms())

    async def _send(self, request: RestRequest) -> RestResponse:
        await self._clock.sleep(self._limit.reserve(request.method, self._clock.monotonic()))
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

    def _open(self) -> Http:
        return self._open_http(self.url, self._credentials, now_ms=self.now_ms, timing=self._timing)
