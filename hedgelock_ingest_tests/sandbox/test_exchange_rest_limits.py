"""Rate limits of REST: those of the user by path, and those of an address."""

import asyncio

from hedgelock_ingest_tests.sandbox.account_fixtures import LOANS, ask, send
from hedgelock_ingest_tests.sandbox.exchange_fixtures import running_exchange

WALLET = "/v5/account/wallet-balance"


async def test_a_sixth_loan_query_in_a_second_is_refused() -> None:
    """All keys share the limit of the account, each path has its own, and a header has the time of the reset."""
    async with running_exchange() as exchange:
        path = f"{LOANS}-common/position"
        answers = await asyncio.gather(*(ask(exchange, path, key=key) for key in ("trading", "read-only") * 3))
        assert sorted(answer.headers["X-Bapi-Limit-Status"] for answer in answers) == ["0", "0", "1", "2", "3", "4"]
        [refused] = [answer for answer in answers if answer.body["retCode"]]
        assert (refused.status, refused.body["retCode"]) == (200, 10006)
        reset_ms = int(refused.headers["X-Bapi-Limit-Reset-Timestamp"])
        assert 0 < reset_ms - refused.body["time"] <= 1_000
        assert (await ask(exchange, f"{LOANS}-flexible/ongoing-coin")).body["retCode"] == 0
        await asyncio.sleep((reset_ms - exchange.now_ms()) / 1000 + 0.01)
        assert (await ask(exchange, path)).body["retCode"] == 0


async def test_limits_can_be_set() -> None:
    """A test must be able to reach a limit without fifty requests."""
    async with running_exchange(requests_per_s={WALLET: 1}) as exchange:
        answers = await asyncio.gather(*(ask(exchange, WALLET, accountType="UNIFIED") for _ in range(2)))
        assert sorted(answer.body["retCode"] for answer in answers) == [0, 10006]


async def test_an_address_with_too_many_requests_is_refused_for_a_while() -> None:
    """The refusal is an HTML page, on public paths as well."""
    async with running_exchange(requests_per_5_s=3) as exchange:
        for _ in range(3):
            assert (await ask(exchange, "/v5/market/time")).status == 200
        refused = await ask(exchange, WALLET, accountType="UNIFIED")
        assert refused.status == 403
        assert refused.headers["Content-Type"].startswith("text/html")
        assert "access too frequent" in refused.text
        assert (await ask(exchange, "/v5/market/time")).status == 403


async def test_unsigned_requests_of_an_address_have_a_separate_limit() -> None:
    """Signed ones are still answered, their limits untouched: a client needs two limiters, not one."""
    async with running_exchange(public_per_5_s=2, requests_per_s={WALLET: 3}) as exchange:
        public = [await send(exchange, "/v5/market/time", "", {}) for _ in range(3)]
        assert [answer.status for answer in public] == [200, 200, 403]
        assert "access too frequent" in public[2].text
        # Public answers have none of the headers, which are those of a user.
        assert not [name for answer in public for name in answer.headers if name.startswith("X-Bapi")]
        signed = [await ask(exchange, WALLET, accountType="UNIFIED") for _ in range(3)]
        assert [answer.headers["X-Bapi-Limit-Status"] for answer in signed] == ["2", "1", "0"]


async def test_signed_requests_do_not_use_up_the_public_limit() -> None:
    """While an account is at its limit, trades and tickers can be requested."""
    async with running_exchange(public_per_5_s=1, requests_per_s={WALLET: 2}) as exchange:
        signed = [await ask(exchange, WALLET, accountType="UNIFIED") for _ in range(3)]
        assert [answer.body["retCode"] for answer in signed] == [0, 0, 10006]
        assert (await send(exchange, "/v5/market/time", "", {})).status == 200
        assert (await send(exchange, "/v5/market/time", "", {})).status == 403


async def test_a_refused_address_may_ask_again_after_a_while() -> None:
    """The refusal ends after a time, without any action."""
    async with running_exchange(public_per_5_s=1, ban_s=0.0) as exchange:
        assert [(await send(exchange, "/v5/market/time", "", {})).status for _ in range(3)] == [200, 200, 200]
