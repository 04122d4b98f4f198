"""Circuit breaker and limits of a REST session, in virtual time."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine

import msgspec
import pytest

from hedgelock_ingest.bybit.rest_port import Credentials, RestRequest, RestResponse, RestTiming
from hedgelock_ingest.bybit.rest_session import RestSession
from hedgelock_ingest.errors import RestLimited, RestUnavailable
from hedgelock_ingest.protocol.circuit_breaker import BreakerState
from hedgelock_ingest.protocol.rate_limits import LimitHeaders
from hedgelock_ingest_tests.builders import AT_MS
from hedgelock_ingest_tests.simulation.loop import VirtualClock, VirtualLoop

PUBLIC = RestRequest("get_tickers", {}, is_signed=False)
SIGNED = RestRequest("get_wallet_balance")
BAN_S = 600.0


class ScriptedHttp:
    """All connections to a scripted exchange: `answer` is called for each request."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.answer: Callable[[], Awaitable[None]] = succeed

    async def send(self, request: RestRequest) -> RestResponse:
        self.sent.append(request.method)
        await self.answer()
        return RestResponse(msgspec.Raw(b"{}"), AT_MS, LimitHeaders())

    def close(self) -> None:
        pass


async def succeed() -> None:
    await asyncio.sleep(0.01)


async def fail() -> None:
    raise RestUnavailable("no answer")


async def hang() -> None:
    await asyncio.sleep(BAN_S)


async def ban() -> None:
    raise RestLimited("access too frequent", wait_s=BAN_S)


class Stage:
    """A session in virtual time."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.clock = VirtualClock(loop)
        self.http = ScriptedHttp()
        self.session = RestSession(
            "http://127.0.0.1",
            Credentials("key", "secret"),
            requests_per_second=5,
            clock=self.clock,
            open_http=lambda *_, **__: self.http,
            timing=RestTiming(attempts=1),
        )

    async def seconds_of(self, request: Coroutine[None, None, RestResponse]) -> float:
        """Return how long a request takes."""
        began_s = self.clock.monotonic()
        await request
        return self.clock.monotonic() - began_s


def staged(test: Callable[[Stage], Coroutine[None, None, None]]) -> None:
    """Run a test in virtual time."""
    loop = VirtualLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:

        async def run() -> None:
            await test(Stage(loop))

        runner.run(run())


async def open_breaker(stage: Stage, failures: int = 4) -> float:
    """Let requests fail until the breaker waits for some seconds; return how many are left."""
    stage.http.answer = fail
    while True:
        try:
            await stage.session.send(PUBLIC)
        except RestLimited as error:
            if failures <= 0:
                return error.wait_s
            await asyncio.sleep(error.wait_s)
        except RestUnavailable:
            failures -= 1


def test_line_that_has_connected_ends_the_pause_of_the_breaker() -> None:
    """After an outage lines are back within two seconds: nothing waits for the rest of the breaker's pause."""

    async def test(stage: Stage) -> None:
        assert await open_breaker(stage) > 5.0
        stage.http.answer = succeed
        stage.session.probe_now()

        assert await stage.seconds_of(stage.session.send(PUBLIC)) < 0.1
        assert stage.session.status.state is BreakerState.CLOSED

    staged(test)


def test_limit_that_bybit_has_imposed_outlasts_a_reconnect() -> None:
    """Requests of a banned address lengthen the ban. Source: Bybit V5, Rate Limit Rules, "IP Limit"."""

    async def test(stage: Stage) -> None:
        stage.http.answer = ban
        with pytest.raises(RestLimited):
            await stage.session.send(PUBLIC)
        stage.session.probe_now()
        with pytest.raises(RestLimited) as raised:
            await stage.session.send(PUBLIC)

        assert raised.value.wait_s > BAN_S - 1
        assert len(stage.http.sent) == 1

    staged(test)


def test_one_request_probes_and_the_others_wait_for_its_answer() -> None:
    """An exchange that recovers receives one request and not many at once, and none of the others fails for that."""

    async def test(stage: Stage) -> None:
        await asyncio.sleep(await open_breaker(stage))
        stage.http.answer = succeed
        sent = len(stage.http.sent)
        requests = [asyncio.ensure_future(stage.session.send(PUBLIC)) for _ in range(5)]
        await asyncio.sleep(0.005)
        assert len(stage.http.sent) == sent + 1
        await asyncio.gather(*requests)

        assert len(stage.http.sent) == sent + 5

    staged(test)


def test_request_that_hangs_since_the_outage_holds_no_other_back() -> None:
    """A connection from before the outage may be dead although it was not closed; new ones do not share its failure."""

    async def test(stage: Stage) -> None:
        await asyncio.sleep(await open_breaker(stage))
        stage.http.answer = hang
        hanging = asyncio.ensure_future(stage.session.send(PUBLIC))
        await asyncio.sleep(5.0)
        stage.http.answer = succeed
        stage.session.probe_now()
        assert await stage.seconds_of(stage.session.send(SIGNED)) < 0.1
        with pytest.raises(RestUnavailable):
            await hanging

        assert stage.session.status.state is BreakerState.CLOSED

    staged(test)


def test_requests_that_fail_together_lengthen_the_pause_once() -> None:
    """They failed in the same outage."""

    async def test(stage: Stage) -> None:
        stage.http.answer = fail
        await asyncio.gather(*(stage.session.send(PUBLIC) for _ in range(6)), return_exceptions=True)
        with pytest.raises(RestLimited) as raised:
            await stage.session.send(PUBLIC)

        assert raised.value.wait_s <= 1.0
        assert stage.session.status.failures == 6

    staged(test)


def test_public_requests_do_not_wait_for_those_of_the_account() -> None:
    """Bybit counts the former by address, the latter by account. Source: Bybit V5, Rate Limit Rules."""

    async def test(stage: Stage) -> None:
        await stage.session.send(SIGNED)
        account = [asyncio.ensure_future(stage.session.send(SIGNED)) for _ in range(20)]
        await asyncio.sleep(0.05)

        assert await stage.seconds_of(stage.session.send(PUBLIC)) < 0.05
        began_s = stage.clock.monotonic()
        await asyncio.gather(*account)
        assert stage.clock.monotonic() - began_s > 3.0, "five a second"

    staged(test)


def test_requests_that_stop_waiting_use_no_turn() -> None:
    """Hundreds of feeds without a line request more than the limit allows; after it, the first request is sent soon."""

    async def test(stage: Stage) -> None:
        async def impatient() -> None:
            with contextlib.suppress(TimeoutError):
                async with stage.clock.timeout(5.0):
                    await stage.session.send(PUBLIC)

        async def follow() -> None:
            while stage.clock.monotonic() < until_s:
                await impatient()

        until_s = stage.clock.monotonic() + 60.0
        await asyncio.gather(*(follow() for _ in range(400)))

        assert len(stage.http.sent) > 40 * 60
        assert await stage.seconds_of(stage.session.send(PUBLIC)) < 1.0

    staged(test)
