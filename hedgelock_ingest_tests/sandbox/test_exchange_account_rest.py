"""The signed endpoints: access, rate limits and the shapes of answers."""

import asyncio
import json
from typing import Any

import pytest

from hedgelock_ingest.sandbox.exchange import KEYS, SimulatedExchange
from hedgelock_ingest_tests.sandbox.account_fixtures import (
    LOANS,
    ask,
    page_through,
    private_line,
    send,
    signed_headers,
)
from hedgelock_ingest_tests.sandbox.exchange_fixtures import eventually, running_exchange

WALLET = "/v5/account/wallet-balance"
EVERY_ENDPOINT: list[tuple[str, dict[str, Any]]] = [
    (WALLET, {"accountType": "UNIFIED"}),
    ("/v5/account/withdrawal", {"coinName": "BTC,USDT"}),
    ("/v5/account/info", {}),
    ("/v5/account/collateral-info", {}),
    ("/v5/position/list", {"category": "linear", "settleCoin": "USDT"}),
    ("/v5/order/realtime", {"category": "linear", "settleCoin": "USDT"}),
    ("/v5/order/history", {"category": "linear"}),
    ("/v5/execution/list", {"category": "linear"}),
    ("/v5/user/query-api", {}),
    (f"{LOANS}-common/position", {}),
    (f"{LOANS}-common/max-collateral-amount", {"currency": "BTC"}),
    (f"{LOANS}-common/adjustment-history", {}),
    (f"{LOANS}-flexible/ongoing-coin", {}),
    (f"{LOANS}-flexible/borrow-history", {}),
    (f"{LOANS}-flexible/repayment-history", {}),
    (f"{LOANS}-fixed/borrow-contract-info", {}),
    (f"{LOANS}-fixed/borrow-order-info", {}),
    (f"{LOANS}-fixed/repayment-history", {}),
    (f"{LOANS}/ongoing-orders", {}),
]


async def test_every_endpoint_answers_in_the_envelope_with_its_limit() -> None:
    """`/v5/account/info` alone lacks time and further information, as in Bybit's example."""
    async with running_exchange() as exchange:
        for path, query in EVERY_ENDPOINT:
            answer = await ask(exchange, path, **query)
            bare = path == "/v5/account/info"
            expected = ["retCode", "retMsg", "result"] + ([] if bare else ["retExtInfo", "time"])
            assert list(answer.body) == expected, path
            assert answer.result is not None
            limit = 5 if LOANS in path else 10 if path.endswith("query-api") else 50
            assert answer.headers["X-Bapi-Limit"] == str(limit), path
            assert answer.headers["X-Bapi-Limit-Status"] == str(limit - 1)
            assert abs(int(answer.headers["X-Bapi-Limit-Reset-Timestamp"]) - exchange.now_ms()) < 1_000


@pytest.mark.parametrize(
    ("key", "ret_code", "ret_msg"),
    [("expired", 33004, "expired"), ("ip-bound", 10010, "Unmatched IP"), ("no-spot", 10005, "Permission denied")],
)
async def test_a_key_without_access_is_refused(key: str, ret_code: int, ret_msg: str) -> None:
    """The refusal is Bybit's code in an answer with HTTP status 200."""
    async with running_exchange() as exchange:
        answer = await ask(exchange, f"{LOANS}-common/position", key=key)
        assert (answer.status, answer.body["retCode"], answer.body["result"]) == (200, ret_code, {})
        assert ret_msg in answer.body["retMsg"]
        if key == "no-spot":
            assert (await ask(exchange, "/v5/position/list", key=key, category="linear", symbol="BTCUSDT")).rows


@pytest.mark.parametrize("path", ["/v5/user/query-api", f"{LOANS}-common/position", f"{LOANS}-flexible/ongoing-coin"])
async def test_a_demo_key_cannot_describe_itself_and_has_no_loans(path: str) -> None:
    """Both are 10032; wallet, positions and private lines of the same key work."""
    async with running_exchange() as exchange:
        answer = await ask(exchange, path, key="demo")
        assert (answer.status, answer.body["retCode"], answer.body["result"]) == (200, 10032, {})
        assert "Demo trading" in answer.body["retMsg"]
        assert (await ask(exchange, WALLET, key="demo", accountType="UNIFIED")).rows
        assert (await ask(exchange, "/v5/position/list", key="demo", category="linear", settleCoin="USDT")).rows
        async with private_line(exchange, "wallet", key="demo") as client:
            exchange.account.deposit("USDT", "1")
            await eventually(lambda: client.data("wallet"))


async def test_any_key_can_be_refused_its_description() -> None:
    """It is a fault that can be switched on and off, so that a test observes how a client recovers."""
    async with running_exchange() as exchange:
        path = "/v5/user/query-api"
        exchange.fail_rest("ret_code", path=path, ret_code=10032)
        refused = await ask(exchange, path)
        assert (refused.body["retCode"], refused.body["retMsg"]) == (10032, "Demo trading are not supported.")
        assert (await ask(exchange, path)).result["readOnly"] == 1


async def test_a_wrong_signature_or_key_is_refused() -> None:
    """10004 repeats what was signed, as Bybit does, so it must never reach a log."""
    async with running_exchange() as exchange:
        query = "accountType=UNIFIED"
        headers = signed_headers(exchange, query, KEYS["read-only"])
        wrong = await send(exchange, WALLET, query, {**headers, "X-BAPI-SIGN": "0" * 64})
        assert wrong.body["retCode"] == 10004
        assert KEYS["read-only"].api_key in wrong.body["retMsg"]
        other = await send(exchange, WALLET, "accountType=UNIFIED&coin=BTC", headers)
        assert other.body["retCode"] == 10004
        unknown_key = await send(exchange, WALLET, query, {**headers, "X-BAPI-API-KEY": "unknown_key"})
        assert unknown_key.body["retCode"] == 10003
        assert (await send(exchange, WALLET, query, {})).status == 401


@pytest.mark.parametrize(("offset_ms", "ret_code"), [(-4_500, 0), (-5_500, 10002), (500, 0), (1_500, 10002)])
async def test_a_request_is_accepted_from_its_window_to_one_second_ahead(offset_ms: int, ret_code: int) -> None:
    """A clock more than a second ahead is refused with any window; the text names both clocks."""
    async with running_exchange() as exchange:
        asked_ms = exchange.now_ms() + offset_ms
        query = "accountType=UNIFIED"
        headers = signed_headers(exchange, query, KEYS["read-only"], timestamp_ms=asked_ms)
        answer = await send(exchange, WALLET, query, headers)
        assert answer.body["retCode"] == ret_code
        if ret_code:
            assert f"req_timestamp[{asked_ms}],server_timestamp[" in answer.body["retMsg"]


async def test_the_signed_text_is_the_query_as_it_was_sent() -> None:
    """It includes percent encoding: a client that signs one text and sends another is refused."""
    async with running_exchange() as exchange:
        encoded = "category=linear&cursor=9%3A2%2C9%3A2"
        decoded = "category=linear&cursor=9:2,9:2"
        good = await send(exchange, "/v5/execution/list", encoded, signed_headers(exchange, encoded, KEYS["read-only"]))
        assert good.body["retCode"] == 0
        bad = await send(exchange, "/v5/execution/list", encoded, signed_headers(exchange, decoded, KEYS["read-only"]))
        assert bad.body["retCode"] == 10004


@pytest.mark.parametrize(
    ("key", "read_only", "spot", "days"),
    [
        ("read-only", 1, ["SpotTrade"], 85),
        ("trading", 0, ["SpotTrade"], 85),
        ("no-spot", 1, [], 85),
        ("expiring", 1, ["SpotTrade"], 3),
    ],
)
async def test_the_query_of_a_key_returns_its_permissions_and_expiry(
    key: str, read_only: int, spot: list[str], days: int
) -> None:
    """The answer has the key's permissions and its expiry."""
    async with running_exchange() as exchange:
        result = (await ask(exchange, "/v5/user/query-api", key=key)).result
    assert result["apiKey"] == KEYS[key].api_key
    assert (result["readOnly"], result["permissions"]["Spot"], result["deadlineDay"]) == (read_only, spot, days)
    assert result["userID"] == 100000001
    assert ("Withdraw" in result["permissions"]["Wallet"]) is (key == "trading")
    assert KEYS[key].api_secret not in str(result)


async def test_positions_by_symbol_include_a_flat_one_and_by_coin_do_not() -> None:
    """A position that closed during an outage disappears from the list by coin."""
    async with running_exchange() as exchange:
        exchange.account.fill("BTCUSDT", "Buy", "0.25")
        by_symbol = (await ask(exchange, "/v5/position/list", category="linear", symbol="BTCUSDT")).rows
        never = (await ask(exchange, "/v5/position/list", category="linear", symbol="ETHUSDT")).rows
        by_coin = (await ask(exchange, "/v5/position/list", category="linear", settleCoin="USDT")).result
    assert [(row["side"], row["size"], row["avgPrice"]) for row in by_symbol] == [("", "0", "0")]
    assert "entryPrice" not in by_symbol[0]
    assert "category" not in by_symbol[0]
    assert [row["seq"] for row in never] == [-1]
    assert by_coin == {"list": [], "nextPageCursor": "", "category": "linear"}


async def test_positions_come_in_pages() -> None:
    """The cursor is empty at the end."""
    symbols = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
    async with running_exchange(linear_symbols=symbols) as exchange:
        for symbol in symbols[1:]:
            exchange.account.fill(symbol, "Buy", "1")
        pages = await page_through(exchange, "/v5/position/list", category="linear", settleCoin="USDT", limit=2)
    assert [[row["symbol"] for row in page] for page in pages] == [["BTCUSDT", "ETHUSDT"], ["SOLUSDT"]]


async def test_executions_page_backwards_and_new_ones_do_not_shift_pages() -> None:
    """Cursors are returned percent-encoded and accepted in that form."""
    async with running_exchange() as exchange:
        ids = [exchange.account.fill("BTCUSDT", "Buy", "0.001")[0] for _ in range(5)]
        path = "/v5/execution/list"
        query: dict[str, Any] = {"category": "linear", "limit": 2}
        first = await ask(exchange, path, **query)
        cursor = first.result["nextPageCursor"]
        assert "%3A" in cursor
        exchange.account.fill("BTCUSDT", "Buy", "0.001")
        second = await ask(exchange, path, **query, cursor=cursor)
        assert [row["execId"] for row in first.rows + second.rows] == ids[::-1][:4]
        encoded_twice = cursor.replace("%", "%25")
        assert (await ask(exchange, path, **query, cursor=encoded_twice)).body["retCode"] == 10001
        pages = await page_through(exchange, path, **query)
        rows = [row for page in pages for row in page]
        assert [row["execId"] for row in rows] == [one.exec_id for one in reversed(exchange.account.executions)]
        assert not {"category", "execPnl", "isLeverage", "marketUnit"} & set(rows[0])


async def test_executions_can_be_requested_by_symbol_order_and_time() -> None:
    """A window has at most seven days."""
    async with running_exchange() as exchange:
        exchange.account.fill("ETHUSDT", "Buy", "0.1")
        newest = exchange.account.executions[-1]
        path = "/v5/execution/list"

        async def found(**query: Any) -> list[str]:
            return [row["execId"] for row in (await ask(exchange, path, category="linear", **query)).rows]

        assert await found(symbol="ETHUSDT") == [newest.exec_id]
        assert await found(orderId=newest.order.order_id) == [newest.exec_id]
        assert await found(execType="Funding") == []
        now_ms = exchange.now_ms()
        assert await found(startTime=now_ms + 1) == []
        assert await found(endTime=newest.filled_ms) == [
            one.exec_id for one in reversed(exchange.account.executions) if one.filled_ms <= newest.filled_ms
        ]
        week_ms = 7 * 86_400_000
        assert len(await found(startTime=now_ms - week_ms, endTime=now_ms)) == 2
        for start_ms, end_ms in ((now_ms - week_ms - 1, now_ms), (now_ms, now_ms - 1)):
            answer = await ask(exchange, path, category="linear", startTime=start_ms, endTime=end_ms)
            assert answer.body["retCode"] == 10001


async def test_orders_are_open_or_closed() -> None:
    """Open orders come from the realtime path, closed ones there on demand and from the history; newest first."""
    async with running_exchange() as exchange:
        account = exchange.account
        kept = account.place_order("BTCUSDT", "Buy", "0.01", "60000")
        gone = account.place_order("BTCUSDT", "Buy", "0.01", "61000")
        account.cancel_order(gone)

        async def found(path: str, **query: Any) -> list[str]:
            answer = await ask(exchange, f"/v5/order/{path}", category="linear", **query)
            return [row["orderId"] for row in answer.rows]

        first = next(iter(account.orders))
        assert await found("realtime", symbol="BTCUSDT") == [kept]
        assert await found("realtime", symbol="BTCUSDT", openOnly=1) == [gone, first]
        assert await found("history") == [gone, first]
        assert await found("history", orderStatus="Cancelled") == [gone]
        assert await found("realtime", settleCoin="USDT", orderId=gone) == []
        row = (await ask(exchange, "/v5/order/realtime", category="linear", symbol="BTCUSDT")).rows[0]
        assert (row["avgPrice"], row["triggerPrice"], row["leavesQty"]) == ("0", "0.00", "0.01")
        assert "category" not in row
        assert (await page_through(exchange, "/v5/order/history", category="linear", limit=1))[1][0]["orderId"] == first


@pytest.mark.parametrize(
    ("path", "query"),
    [
        (WALLET, {}),
        (WALLET, {"accountType": "SPOT"}),
        ("/v5/position/list", {"category": "linear"}),
        ("/v5/position/list", {"category": "stocks", "symbol": "BTCUSDT"}),
        ("/v5/position/list", {"category": "linear", "symbol": "NOPEUSDT"}),
        ("/v5/order/realtime", {"category": "linear"}),
        ("/v5/order/history", {}),
        ("/v5/execution/list", {"category": "linear", "limit": "0"}),
        ("/v5/execution/list", {"category": "linear", "startTime": "yesterday"}),
        (f"{LOANS}-common/max-collateral-amount", {}),
    ],
)
async def test_wrong_parameters_are_refused(path: str, query: dict[str, Any]) -> None:
    """The code is 10001, and such requests count towards the limit."""
    async with running_exchange() as exchange:
        answer = await ask(exchange, path, **query)
        assert (answer.status, answer.body["retCode"]) == (200, 10001)
        assert int(answer.headers["X-Bapi-Limit-Status"]) == int(answer.headers["X-Bapi-Limit"]) - 1


async def test_coins_of_the_wallet_can_be_named() -> None:
    """Without names only coins with a balance are returned."""
    async with running_exchange() as exchange:
        exchange.account.withdraw("ETH", "4")

        async def coins(**query: Any) -> list[str]:
            return [
                coin["coin"] for coin in (await ask(exchange, WALLET, accountType="UNIFIED", **query)).rows[0]["coin"]
            ]

        assert await coins() == ["USDT", "BTC", "USDC"]
        assert await coins(coin="BTC,ETH") == ["BTC", "ETH"]


async def test_a_shifted_clock_changes_answers_and_accepted_timestamps() -> None:
    """A client that signs with its own clock is refused until it asks for the time."""
    async with running_exchange() as exchange:
        own_ms = exchange.now_ms()
        exchange.shift_clock(30)
        server_ms = (await ask(exchange, "/v5/market/time")).body["time"]
        assert 29_000 < server_ms - own_ms < 31_000
        query = "accountType=UNIFIED"
        headers = signed_headers(exchange, query, KEYS["read-only"], timestamp_ms=own_ms)
        assert (await send(exchange, WALLET, query, headers)).body["retCode"] == 10002
        assert (await ask(exchange, WALLET, accountType="UNIFIED")).body["retCode"] == 0


async def fail_then_restore(exchange: SimulatedExchange, **fault: Any) -> list[Any]:
    exchange.fail_rest(**fault)
    return [await ask(exchange, WALLET, accountType="UNIFIED") for _ in range(2)]


@pytest.mark.parametrize("status", [500, 502, 503, 429])
async def test_an_endpoint_can_fail_as_a_server_does(status: int) -> None:
    """The fault affects as many requests as set, and only its path."""
    async with running_exchange() as exchange:
        failed, good = await fail_then_restore(exchange, kind="status", status=status)
        assert (failed.status, good.status) == (status, 200)
        exchange.fail_rest("status", path="/v5/market/", status=status, count=None)
        assert (await ask(exchange, WALLET, accountType="UNIFIED")).status == 200
        assert [(await ask(exchange, "/v5/market/time")).status for _ in range(3)] == [status] * 3
        exchange.restore_rest()
        assert (await ask(exchange, "/v5/market/time")).status == 200


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        ({"kind": "html", "status": 200}, 200, "text/html"),
        ({"kind": "forbidden"}, 403, "text/html"),
        ({"kind": "truncated"}, 200, "application/json"),
    ],
)
async def test_an_answer_can_be_invalid_json(fault: dict[str, Any], status: int, kind: str) -> None:
    """It can be an HTML page, a refusal of the front, or half an answer."""
    async with running_exchange() as exchange:
        failed, good = await fail_then_restore(exchange, **fault)
        assert failed.status == status
        assert failed.headers["Content-Type"].startswith(kind)
        with pytest.raises(json.JSONDecodeError):
            _ = failed.body
        assert good.result


@pytest.mark.parametrize("ret_code", [10002, 10006, 10016])
async def test_an_answer_can_be_a_refusal(ret_code: int) -> None:
    """The refusal is complete: the clocks of 10002, the headers of 10006."""
    async with running_exchange() as exchange:
        failed, good = await fail_then_restore(exchange, kind="ret_code", ret_code=ret_code)
        assert failed.body["retCode"] == ret_code
        assert good.result
        if ret_code == 10002:
            assert "server_timestamp[" in failed.body["retMsg"]
        if ret_code == 10006:
            assert int(failed.headers["X-Bapi-Limit-Reset-Timestamp"]) > failed.body["time"]


async def test_an_answer_can_be_late() -> None:
    """A client's timeout can be tested; other requests are answered meanwhile."""
    async with running_exchange() as exchange:
        exchange.fail_rest("silence", seconds=1.0, path=WALLET)
        waiting = asyncio.create_task(ask(exchange, WALLET, accountType="UNIFIED"))
        await asyncio.sleep(0.05)
        assert (await ask(exchange, "/v5/account/info")).status == 200
        assert not waiting.done()
        assert (await waiting).result
