"""Faults of REST: each is reported clearly, retried where that helps, and ends no process."""

import asyncio
import re
import time
import traceback

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from structlog.testing import capture_logs

from hedgelock_ingest.bybit.rest_http import open_http
from hedgelock_ingest.bybit.rest_port import RestRequest
from hedgelock_ingest.errors import IngestError, RestError, RestLimited, RestRefused, RestUnavailable
from hedgelock_ingest.protocol.circuit_breaker import BreakerState
from hedgelock_ingest.protocol.rest_messages import Purpose
from hedgelock_ingest.sandbox.exchange.keys import KEYS
from hedgelock_ingest_tests.builders import AT_MS
from hedgelock_ingest_tests.bybit.rest import QUICK, client_for
from hedgelock_ingest_tests.sandbox.exchange_fixtures import running_exchange

POLL = Purpose.POLL
WALLET = "/v5/account/wallet-balance"


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("status", {"status": 503}),
        ("status", {"status": 429}),
        ("html", {"status": 200}),
        ("html", {"status": 502}),
        ("truncated", {}),
        ("silence", {"seconds": 1.0}),
        ("ret_code", {"ret_code": 10000}),
        ("ret_code", {"ret_code": 10016}),
        ("ret_code", {"ret_code": 10002}),
    ],
    ids=lambda each: str(each),
)
async def test_temporary_failure_is_retried(kind: str, options: dict[str, int | float]) -> None:
    """After a single failure of any kind the request is answered."""
    async with running_exchange() as exchange, client_for(exchange) as rest:
        exchange.fail_rest(kind, path=WALLET, count=1, **options)  # type: ignore[arg-type]
        answer = await rest.wallet(POLL)

    assert "wallet" in answer.results


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("status", {"status": 500}, "HTTP 500"),
        ("html", {"status": 200}, "HTTP 200 .*a web page.*expected JSON"),
        ("truncated", {}, "expected JSON"),
        ("silence", {"seconds": 5.0}, "in time"),
        ("ret_code", {"ret_code": 10016}, "busy"),
    ],
    ids=lambda each: str(each),
)
async def test_lasting_failure_opens_the_breaker(kind: str, options: dict[str, int | float], words: str) -> None:
    """After the last attempt the next call fails at once, without a request."""
    async with running_exchange() as exchange, client_for(exchange) as rest:
        exchange.fail_rest(kind, path=WALLET, count=None, **options)  # type: ignore[arg-type]
        with pytest.raises(RestUnavailable, match=words):
            await rest.wallet(POLL)
        requests = rest.status.requests
        with pytest.raises(RestLimited, match="no REST request"):
            await rest.collateral(POLL)

        assert rest.status.requests == requests
        assert rest.status.state is BreakerState.OPEN
        assert re.search(words, rest.status.reason or "")


async def test_breaker_closes_when_bybit_has_recovered() -> None:
    """After the pause one request probes Bybit, and its answer closes the breaker."""
    async with running_exchange() as exchange, client_for(exchange) as rest:
        exchange.fail_rest("status", path=WALLET, count=None)
        with pytest.raises(RestUnavailable):
            await rest.wallet(POLL)
        exchange.restore_rest()
        async with asyncio.timeout(5):
            while True:
                try:
                    await rest.wallet(POLL)
                    break
                except RestLimited as error:
                    await asyncio.sleep(error.wait_s)

        assert rest.status.state is BreakerState.CLOSED


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize(
    "body",
    [b'{"retCode":0,"retMsg":"private text \xff"}', b'{"retCode":0,"private text":' + b"[" * 200_000],
    ids=["invalid-utf8", "deep-nesting"],
)
async def test_answer_of_foreign_bytes_is_an_error_of_ours_without_them(body: bytes, status: int) -> None:
    """Any other exception would end the process; and the text of an error is logged and shown."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body, status=status, content_type="application/json")

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    async with TestServer(app) as server:
        http = open_http(str(server.make_url("")).rstrip("/"), None, now_ms=lambda: AT_MS, timing=QUICK)
        with pytest.raises(RestError) as raised:
            await http.send(RestRequest("get_server_time", is_signed=False))
        http.close()

    assert "private text" not in "".join(traceback.format_exception(raised.value))


async def test_refused_connection_is_reported() -> None:
    """The error for a wrong address or a failed network names the cause, without the library's long text."""
    async with running_exchange() as exchange:
        rest = client_for(exchange)
    with pytest.raises(RestUnavailable, match=r"refuses connections.*correct BYBIT_REST_URL"):
        await rest.wallet(POLL)


async def test_banned_address_sends_nothing_for_ten_minutes() -> None:
    """After HTTP 403 each further request would prolong the ban, so none is sent."""
    async with running_exchange() as exchange, client_for(exchange) as rest:
        exchange.fail_rest("forbidden", count=1)
        with pytest.raises(RestLimited, match="10 minutes") as refusal:
            await rest.server_time()
        with pytest.raises(RestLimited, match="no REST request for another"):
            await rest.server_time()

        assert refusal.value.wait_s == 600
        assert rest.status.requests == 1


async def test_rate_limit_of_an_endpoint_delays_the_retry() -> None:
    """After 10006 the request is repeated at the time in Bybit's header, and no earlier."""
    async with running_exchange() as exchange, client_for(exchange) as rest:
        await rest.wallet(POLL)
        exchange.fail_rest("ret_code", path=WALLET, ret_code=10006, count=1)
        began_s = time.monotonic()
        await rest.wallet(POLL)

        assert time.monotonic() - began_s >= 0.9


async def test_our_rate_keeps_within_bybits_limit() -> None:
    """At the default of five a second, twelve requests to a loan endpoint are never refused."""
    async with running_exchange() as exchange, client_for(exchange, bybit_rest_requests_per_second=5) as rest:
        began_s = time.monotonic()
        await asyncio.gather(*(rest.collateral(POLL) for _ in range(12)))

        assert time.monotonic() - began_s >= 2.0
        assert rest.status.requests == 13  # and the clock once


@pytest.mark.parametrize("offset_s", [10.0, -10.0])
async def test_clock_that_differs_is_measured_and_corrected(offset_s: float) -> None:
    """Bybit refuses requests from a clock 1 s ahead, so ours carry Bybit's time."""
    async with running_exchange() as exchange, client_for(exchange) as rest:
        exchange.shift_clock(offset_s)
        await rest.wallet(POLL)

        assert rest.status.clock_ahead_s == pytest.approx(-offset_s, abs=0.5)


async def test_clock_that_jumps_later_is_measured_again() -> None:
    """One refusal with 10002 is enough to follow Bybit's clock."""
    async with running_exchange() as exchange, client_for(exchange) as rest:
        await rest.wallet(POLL)
        exchange.shift_clock(-10.0)
        await rest.wallet(POLL)

        assert rest.status.clock_ahead_s == pytest.approx(10.0, abs=0.5)


@pytest.mark.parametrize(
    ("name", "words"),
    [("expired", "has expired"), ("ip-bound", "IP addresses")],
)
async def test_refused_key_states_the_action(name: str, words: str) -> None:
    """A permanent refusal is not retried; it names the action."""
    async with running_exchange() as exchange, client_for(exchange, KEYS[name]) as rest:
        with pytest.raises(RestRefused, match=words):
            await rest.wallet(POLL)

        assert rest.status.requests == 2  # the clock and the wallet


async def test_no_secret_is_in_errors_or_logs() -> None:
    """Bybit's text for a wrong signature contains the key, and library errors contain complete requests."""
    key = KEYS["read-only"]
    async with running_exchange() as exchange:
        wrong = client_for(exchange, bybit_api_secret="wrong-secret-of-a-test")
        right = client_for(exchange)
        errors: list[IngestError] = []
        with capture_logs() as logs:
            for rest in (wrong, right):
                for fault in (None, "html", "truncated", "status"):
                    if fault:
                        exchange.fail_rest(fault, path=WALLET, count=None)
                    try:
                        await rest.wallet(POLL)
                    except RestError as error:
                        errors.append(error)
                    exchange.restore_rest()

    texts = "\n".join([*map(repr, errors), *map(str, errors), *(str(e.__cause__) for e in errors), *map(str, logs)])
    assert "does not belong to BYBIT_API_KEY" in texts
    for secret in (key.api_key, key.api_secret, "wrong-secret-of-a-test"):
        assert secret not in texts
