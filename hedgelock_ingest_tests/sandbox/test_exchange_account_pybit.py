"""Stock pybit against the account: every signed call and every private stream that we use."""

import asyncio
from collections.abc import Callable
from typing import Any

import pybit._http_manager
import pybit.unified_trading
import pytest
from pybit.exceptions import FailedRequestError, InvalidRequestError
from pybit.unified_trading import HTTP, WebSocket

from hedgelock_ingest.sandbox.exchange import KEYS, SimulatedExchange
from hedgelock_ingest_tests.sandbox.exchange_fixtures import eventually, running_exchange

LINEAR: dict[str, Any] = {"category": "linear"}
# The methods for legacy loans cannot be called in pybit 5.17: they read an attribute that is never set.
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("get_server_time", {}),
    ("get_wallet_balance", {"accountType": "UNIFIED"}),
    ("get_transferable_amount", {"coinName": "BTC,USDT"}),
    ("get_account_info", {}),
    ("get_collateral_info", {"currency": "BTC"}),
    ("get_positions", {**LINEAR, "settleCoin": "USDT"}),
    ("get_positions", {**LINEAR, "symbol": "BTCUSDT"}),
    ("get_positions", {"category": "inverse"}),
    ("get_positions", {"category": "option"}),
    ("get_open_orders", {**LINEAR, "symbol": "BTCUSDT"}),
    ("get_order_history", LINEAR),
    ("get_executions", {**LINEAR, "limit": 1}),
    ("get_api_key_information", {}),
    ("get_position_new_crypto_loan", {}),
    ("get_collateral_coins_new_crypto_loan", {"currency": "BTC"}),
    ("get_borrowable_coins_new_crypto_loan", {"currency": "BTC"}),
    ("get_max_allowed_collateral_reduction_amount_new_crypto_loan", {"currency": "BTC"}),
    ("get_crypto_loan_ltv_adjustment_history_new_crypto_loan", {}),
    ("get_flexible_loans_flexible_crypto_loan", {}),
    ("get_borrowing_history_flexible_crypto_loan", {}),
    ("get_repayment_history_flexible_crypto_loan", {}),
    ("get_borrowing_contract_info_fixed_crypto_loan", {}),
    ("get_borrowing_orders_fixed_crypto_loan", {}),
    ("get_repayment_history_fixed_crypto_loan", {}),
]


@pytest.fixture
def addressed(monkeypatch: pytest.MonkeyPatch) -> Callable[[SimulatedExchange], None]:
    """Point pybit, whose addresses and schemes are fixed, at an exchange."""

    def address(exchange: SimulatedExchange) -> None:
        monkeypatch.setattr(pybit.unified_trading, "PRIVATE_WSS", exchange.private_ws_url)
        monkeypatch.setattr(pybit._http_manager, "HTTP_URL", exchange.rest_url)

    return address


def http(key: str = "read-only", **options: Any) -> HTTP:
    return HTTP(testnet=True, api_key=KEYS[key].api_key, api_secret=KEYS[key].api_secret, **options)


async def test_stock_pybit_calls_every_endpoint(addressed: Callable[[SimulatedExchange], None]) -> None:
    """pybit signs each call itself, and its cursor of executions leads to the next page."""
    async with running_exchange() as exchange:
        addressed(exchange)
        exchange.account.fill("BTCUSDT", "Buy", "0.001")
        client = await asyncio.to_thread(http)
        answers = {}
        for name, arguments in CALLS:
            answers[name] = await asyncio.to_thread(getattr(client, name), **arguments)
            assert answers[name]["retCode"] == 0, name
        first = answers["get_executions"]["result"]
        second = await asyncio.to_thread(client.get_executions, **LINEAR, limit=1, cursor=first["nextPageCursor"])
        ids = [row["execId"] for row in first["list"] + second["result"]["list"]]
        assert ids == [one.exec_id for one in reversed(exchange.account.executions)]
        assert answers["get_position_new_crypto_loan"]["result"]["ltv"] == "0.613426"
        transferable = answers["get_transferable_amount"]["result"]
        assert transferable["availableWithdrawal"] == transferable["availableWithdrawalMap"]["BTC"] == "0.50000000"


@pytest.mark.parametrize(
    ("key", "ret_code"), [("expired", 33004), ("no-spot", 10005), ("ip-bound", 10010), ("demo", 10032)]
)
async def test_stock_pybit_raises_for_a_key_without_access(
    key: str, ret_code: int, addressed: Callable[[SimulatedExchange], None]
) -> None:
    """The error has the code of the envelope."""
    async with running_exchange() as exchange:
        addressed(exchange)
        client = await asyncio.to_thread(http, key)
        with pytest.raises(InvalidRequestError) as refused:
            await asyncio.to_thread(client.get_position_new_crypto_loan)
        assert refused.value.status_code == ret_code


async def test_stock_pybit_reads_both_wallets_and_every_category(
    addressed: Callable[[SimulatedExchange], None],
) -> None:
    """Whatever the account holds, pybit returns it under the account type and the category asked for."""
    async with running_exchange(contract_wallet={"BTC": "0.2"}) as exchange:
        addressed(exchange)
        exchange.account.fill("BTCUSD", "Buy", "1000")
        exchange.account.fill("BTC-25DEC26-70000-C", "Buy", "0.5")
        client = await asyncio.to_thread(http)
        wallets = [
            (await asyncio.to_thread(client.get_wallet_balance, accountType=kind))["result"]["list"][0]
            for kind in ("UNIFIED", "CONTRACT")
        ]
        assert [(row["accountType"], row["totalEquity"] != "") for row in wallets] == [
            ("UNIFIED", True),
            ("CONTRACT", False),
        ]
        for category, symbol in (("inverse", "BTCUSD"), ("option", "BTC-25DEC26-70000-C")):
            answer = await asyncio.to_thread(client.get_positions, category=category)
            assert [row["symbol"] for row in answer["result"]["list"]] == [symbol]


async def test_stock_pybit_waits_for_a_limit_to_reset(addressed: Callable[[SimulatedExchange], None]) -> None:
    """It reads the header of the reset, sleeps, and is answered; after a 403 it gives up."""
    async with running_exchange(requests_per_s={"/v5/account/info": 1}) as exchange:
        addressed(exchange)
        client = await asyncio.to_thread(http)
        for _ in range(2):
            assert (await asyncio.to_thread(client.get_account_info))["retCode"] == 0
        exchange.fail_rest("forbidden")
        with pytest.raises(FailedRequestError):
            await asyncio.to_thread(client.get_account_info)


async def test_stock_pybit_receives_every_private_stream(addressed: Callable[[SimulatedExchange], None]) -> None:
    """Messages of complete topics and of one category arrive as they were sent."""
    received: dict[str, list[dict[str, Any]]] = {}

    def keep(message: dict[str, Any]) -> None:
        received.setdefault(message["topic"], []).append(message)

    def subscribe() -> WebSocket:
        client = WebSocket(
            testnet=True,
            channel_type="private",
            api_key=KEYS["read-only"].api_key,
            api_secret=KEYS["read-only"].api_secret,
            private_auth_expire=10,
        )
        client.wallet_stream(keep)
        client.position_stream(keep)
        client.order_stream(keep)
        client.execution_stream(keep)
        client.subscribe("order.linear", keep, [""])
        return client

    # pybit loses an answer that arrives before it has recorded its own request.
    async with running_exchange(answer_delay_s=0.1) as exchange:
        addressed(exchange)
        client = await asyncio.to_thread(subscribe)
        try:
            await eventually(lambda: exchange.lines.open and len(exchange.lines.open[0].deliveries) == 5)
            exchange.account.fill("BTCUSDT", "Buy", "0.01")
            await eventually(lambda: len(received) == 5)
            assert received["wallet"] == [list(exchange.account.history.frames)[-1]]
            assert received["order.linear"][0]["data"] == received["order"][0]["data"]
        finally:
            await asyncio.to_thread(client.exit)
