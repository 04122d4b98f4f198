"""Everything that can go wrong with REST: told in clear words, retried where that helps, deadly for nothing."""

import asyncio
import time

import pytest
from structlog.testing import capture_logs

from hedgelock_ingest.errors import IngestError, RestError, RestLimited, RestRefused, RestUnavailable
from hedgelock_ingest.protocol.breaker import BreakerState
from hedgelock_ingest.protocol.rest_messages import Purpose
from hedgelock_ingest.sandbox.exchange.keys import KEYS
from hedgelock_ingest_tests.bybit.rest import client_for
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
async def test_passing_trouble_is_asked_again(kind: str, options: dict[str, int | float]) -> None:
    """Whatever Bybit's front does once, the question is answered all the same."""
    async with running_exchange() as exchange, client_for(exchange) as rest:
        exchange.fail_rest(kind, path=WALLET, count=1, **options)  # type: ignore[arg-type]
        answer = await rest.wallet(POLL)

    assert "wallet" in answer.results


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("status", {"status": 500}, "HTTP 500"),
        ("html", {"status": 200}, "does not answer as Bybit does"),
        ("truncated", {}, "does not answer as Bybit does"),
        ("silence", {"seconds": 5.0}, "in time"),
        ("ret_code", {"ret_code": 10016}, "busy"),
    ],
    ids=lambda each: str(each),
)
async def test_lasting_trouble_opens_the_breaker(kind: str, options: dict[str, int | float], words: str) -> None:
    """After the attempts Bybit is left alone: the next question fails at once, without a request."""
    async with running_exchange() as exchange, client_for(exchange) as rest:
        exchange.fail_rest(kind, path=WALLET, count=None, **options)  # type: ignore[arg-type]
        with pytest.raises(RestUnavailable, match=words):
            await rest.wallet(POLL)
        asked = rest.status.requests
        with pytest.raises(RestLimited, match="not asked"):
            await rest.collateral(POLL)

        assert rest.status.requests == asked
        assert rest.status.state is BreakerState.OPEN
        assert words in (rest.status.reason or "")


async def test_breaker_closes_when_bybit_is_back() -> None:
    """After its pause one question finds out that Bybit is back, and all is as before."""
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


async def test_nobody_listening_is_told() -> None:
    """A wrong address or a dead network names the cause, not a library's page of text."""
    async with running_exchange() as exchange:
        rest = client_for(exchange)
    with pytest.raises(RestUnavailable, match="ConnectionRefusedError"):
        await rest.wallet(POLL)


async def test_barred_address_is_kept_still_for_ten_minutes() -> None:
    """After HTTP 403 each further request would prolong the ban, so none is sent."""
    async with running_exchange() as exchange, client_for(exchange) as rest:
        exchange.fail_rest("forbidden", count=1)
        with pytest.raises(RestLimited, match="10 minutes") as refusal:
            await rest.server_time()
        with pytest.raises(RestLimited, match="not asked for another"):
            await rest.server_time()

        assert refusal.value.wait_s == 600
        assert rest.status.requests == 1


async def test_limit_of_an_endpoint_is_waited_for() -> None:
    """With 10006 the question is asked again when Bybit's header says so, and no earlier."""
    async with running_exchange() as exchange, client_for(exchange) as rest:
        await rest.wallet(POLL)
        exchange.fail_rest("ret_code", path=WALLET, ret_code=10006, count=1)
        began_s = time.monotonic()
        await rest.wallet(POLL)

        assert time.monotonic() - began_s >= 0.9


async def test_own_rate_keeps_within_bybits_limit() -> None:
    """At the default of five a second, twelve questions to a loan endpoint are never refused."""
    async with running_exchange() as exchange, client_for(exchange, bybit_rest_requests_per_second=5) as rest:
        began_s = time.monotonic()
        await asyncio.gather(*(rest.collateral(POLL) for _ in range(12)))

        assert time.monotonic() - began_s >= 2.0
        assert rest.status.requests == 13  # and the clock once


@pytest.mark.parametrize("offset_s", [10.0, -10.0])
async def test_clock_that_differs_is_measured_and_borne(offset_s: float) -> None:
    """Bybit refuses requests from a clock 1 s ahead, so ours are stamped by its own."""
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
async def test_refused_key_says_what_to_do(name: str, words: str) -> None:
    """A refusal for good is not repeated; it names the remedy."""
    async with running_exchange() as exchange, client_for(exchange, KEYS[name]) as rest:
        with pytest.raises(RestRefused, match=words):
            await rest.wallet(POLL)

        assert rest.status.requests == 2  # the clock and the wallet


async def test_no_secret_is_in_errors_or_logs() -> None:
    """Bybit's own text for a wrong signature repeats the key, and libraries repeat whole requests."""
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

    told = "\n".join([*map(repr, errors), *map(str, errors), *(str(e.__cause__) for e in errors), *map(str, logs)])
    assert "does not belong to BYBIT_API_KEY" in told
    for secret in (key.api_key, key.api_secret, "wrong-secret-of-a-test"):
        assert secret not in told
