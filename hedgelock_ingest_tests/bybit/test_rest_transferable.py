"""What may be transferred is requested with the wallet; a failure of that leaves the balances valid."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import pytest
from pydantic import SecretStr

from hedgelock_ingest.bybit import rest_client
from hedgelock_ingest.bybit.rest_client import RestClient
from hedgelock_ingest.bybit.rest_port import Credentials, RestRequest, RestResponse, RestTiming
from hedgelock_ingest.errors import RestRefused, RestUnavailable
from hedgelock_ingest.protocol.circuit_breaker import BreakerState
from hedgelock_ingest.protocol.rate_limits import LimitHeaders
from hedgelock_ingest.protocol.rest_messages import Purpose, RestAnswer
from hedgelock_ingest.settings import Settings
from hedgelock_ingest_tests.builders import AT_MS

SETTINGS = Settings(
    bybit_api_key=SecretStr("key"), bybit_api_secret=SecretStr("secret"), bybit_rest_requests_per_second=50
)
type Transferable = Callable[[list[str]], Awaitable[bytes]]


async def half_of_each(names: list[str]) -> bytes:
    """Answer as Bybit does."""
    return json.dumps({"availableWithdrawal": "0.50", "availableWithdrawalMap": dict.fromkeys(names, "0.50")}).encode()


class WalletInMemory:
    """An account with one of each coin; `transferable` answers what may be transferred of coins."""

    def __init__(self, coins: Sequence[object], transferable: Transferable = half_of_each) -> None:
        self.asked: list[list[str]] = []
        self._coins = coins
        self._transferable = transferable

    def open(
        self, url: str, credentials: Credentials | None, *, now_ms: Callable[[], int], timing: RestTiming
    ) -> "WalletInMemory":
        return self

    def close(self) -> None:
        pass

    async def send(self, request: RestRequest) -> RestResponse:
        """Answer a second later each time."""
        result = b"{}"
        if request.method == "get_wallet_balance":
            rows = [{"coin": name, "walletBalance": "1"} for name in self._coins]
            result = json.dumps({"list": [{"accountType": "UNIFIED", "coin": rows}]}).encode()
        elif request.method == "get_transferable_amount":
            names = str(request.parameters["coinName"]).split(",")
            self.asked.append(names)
            result = await self._transferable(names)
        return RestResponse(msgspec.Raw(result), AT_MS + 1_000 * len(self.asked), LimitHeaders())


def a_client(wallet: WalletInMemory) -> RestClient:
    """Make a client of an account in memory."""
    return RestClient(SETTINGS, open_http=wallet.open)


def amounts_in(answer: RestAnswer) -> dict[str, str]:
    """Return what may be transferred."""
    amounts: dict[str, str] = json.loads(bytes(answer.results["withdrawal"]))["availableWithdrawalMap"]
    return amounts


async def test_all_coins_of_the_wallet_are_requested_twenty_at_a_time() -> None:
    """Bybit takes 20 coins a request; the answer counts as of the balances."""
    coins = [f"COIN{number}" for number in range(45)]
    wallet = WalletInMemory(coins)
    async with a_client(wallet) as rest:
        answer = await rest.wallet(Purpose.POLL)
    assert [len(names) for names in wallet.asked] == [20, 20, 5]
    assert amounts_in(answer) == dict.fromkeys(coins, "0.50")
    assert answer.time_ms == AT_MS


async def test_only_names_that_bybit_accepts_are_requested() -> None:
    """Bybit refuses the whole request because of one other name."""
    wallet = WalletInMemory(["BTC", "btc", "", 7, None, "A,B", "BTC", "1INCH"])
    async with a_client(wallet) as rest:
        await rest.wallet(Purpose.POLL)
    assert wallet.asked == [["BTC", "1INCH"]]


async def test_empty_wallet_is_not_requested_further() -> None:
    """There is nothing to transfer."""
    wallet = WalletInMemory([])
    async with a_client(wallet) as rest:
        assert list((await rest.wallet(Purpose.POLL)).results) == ["wallet"]
    assert wallet.asked == []


async def _unavailable(names: list[str]) -> bytes:
    raise RestUnavailable("Bybit answers HTTP 503")


async def _refused(names: list[str]) -> bytes:
    raise RestRefused("Bybit rejects a parameter of the request (10001)", code=10001)


async def _of_another_shape(names: list[str]) -> bytes:
    return b'{"list":[]}'


async def _unanswered(names: list[str]) -> bytes:
    await asyncio.Event().wait()
    return b""


@pytest.mark.parametrize("fault", [_unavailable, _refused, _of_another_shape, _unanswered])
async def test_failure_loses_no_balance_and_is_tried_again_with_the_next_wallet(
    fault: Transferable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The balances come without it, at once, and other requests are not held back."""
    monkeypatch.setattr(rest_client, "_TRANSFERABLE_PATIENCE_S", 0.05)
    wallet = WalletInMemory(["BTC"], fault)
    async with a_client(wallet) as rest:
        for attempts in (1, 2):
            answer = await rest.wallet(Purpose.SNAPSHOT)
            assert list(answer.results) == ["wallet"]
            assert len(wallet.asked) == attempts
            assert rest.status.state is BreakerState.CLOSED


async def test_request_that_fails_leaves_the_coins_of_the_others() -> None:
    """Each answer counts."""

    async def some(names: list[str]) -> bytes:
        return await (_refused(names) if "COIN0" in names else half_of_each(names))

    wallet = WalletInMemory([f"COIN{number}" for number in range(25)], some)
    async with a_client(wallet) as rest:
        assert len(amounts_in(await rest.wallet(Purpose.POLL))) == 5


async def test_refusal_because_of_the_key_or_account_ends_the_requests() -> None:
    """Each further one would be refused, too."""

    async def forbidden(names: list[str]) -> bytes:
        raise RestRefused("the API key lacks a permission (10005)", code=10005)

    wallet = WalletInMemory([f"COIN{number}" for number in range(25)], forbidden)
    async with a_client(wallet) as rest:
        for _ in range(3):
            assert list((await rest.wallet(Purpose.POLL)).results) == ["wallet"]
    assert len(wallet.asked) == 1
