"""Requests to REST, and their answers."""

import json
import traceback
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from pydantic import SecretStr

from hedgelock_ingest.bybit.rest_client import RestClient
from hedgelock_ingest.bybit.rest_port import RestRequest, RestResponse
from hedgelock_ingest.errors import RestRefused, RestUnavailable
from hedgelock_ingest.protocol.frames import Frame
from hedgelock_ingest.protocol.rate_limits import LimitHeaders
from hedgelock_ingest.protocol.rest_messages import Purpose, RestAnswer
from hedgelock_ingest.sandbox.exchange.keys import KEYS
from hedgelock_ingest.settings import Settings
from hedgelock_ingest.translate.record import Record
from hedgelock_ingest.translate.translator import Translator
from hedgelock_ingest_tests.builders import AT_MS
from hedgelock_ingest_tests.bybit.rest import QUICK, client_for
from hedgelock_ingest_tests.sandbox.exchange_fixtures import running_exchange

POLL = Purpose.POLL


def _rows(answer: RestAnswer, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(bytes(answer.results[name]))["list"]
    return rows


def _records(*answers: RestAnswer) -> list[Record]:
    translator = Translator()
    return [
        record
        for position, answer in enumerate(answers, 1)
        for record in translator.translate(
            position, Frame(f"rest-{answer.part}", 1_000_000_000, b"0" * 16, msgspec.json.encode(answer))
        )
    ]


async def test_complete_account_is_translated_from_answers_only() -> None:
    """Wallet, positions, collateral and loans together give the merged view, with the exchange's figures."""
    async with running_exchange() as exchange, client_for(exchange) as rest:
        answers = [
            await rest.wallet(POLL),
            await rest.positions(POLL),
            await rest.collateral(POLL),
            await rest.loans(POLL),
        ]
        update = json.loads(next(r.value for r in reversed(_records(*answers)) if r.topic == "account-updates"))
        books = exchange.account.books()

    assert {name: Decimal(amount) for name, amount in update["balances"].items()} == {
        name: Decimal(amount) for name, amount in books["balances"].items() if Decimal(amount)
    }
    assert update["loan_amount"] == books["loans"]["totalDebt"]
    assert [each["symbol"] for each in update["positions"]] == ["BTCUSDT"]


async def test_digits_stay_as_bybit_wrote_them() -> None:
    """A balance with trailing zeros, or more digits than a float holds, is not changed."""
    async with running_exchange() as exchange, client_for(exchange) as rest:
        exchange.account.deposit("BTC", "0.123456789012345678")
        answer = await rest.wallet(POLL)
        wallet = exchange.account.wallet()

    coins = {coin["coin"]: coin for coin in _rows(answer, "wallet")[0]["coin"]}
    assert coins["BTC"]["walletBalance"] == next(c["walletBalance"] for c in wallet["coin"] if c["coin"] == "BTC")


async def test_wallet_holds_what_may_be_transferred_of_each_coin() -> None:
    """Bybit leaves it empty in the balances of a unified account."""
    async with running_exchange() as exchange, client_for(exchange) as rest:
        exchange.pause()
        answer = await rest.wallet(POLL)
        coins = [row["coin"] for row in _rows(answer, "wallet")[0]["coin"]]
        expected = exchange.account.transferable(coins)
    [raw] = [json.loads(record.value) for record in _records(answer) if record.topic == "account_raw"]

    assert {coin: balance["available_balance"] for coin, balance in raw["balances"].items()} == expected
    assert raw["margin"]["total_equity"] == _rows(answer, "wallet")[0]["totalEquity"]


@pytest.mark.parametrize("fault", ["status", "ret_code"])
async def test_wallet_comes_without_what_may_be_transferred_while_bybit_refuses_that(fault: str) -> None:
    """Balances and breaker do not depend on it."""
    async with running_exchange() as exchange, client_for(exchange) as rest:
        exchange.fail_rest(fault, path="/v5/account/withdrawal", count=None)
        assert list((await rest.wallet(POLL)).results) == ["wallet"]
        assert rest.status.reason is None
        exchange.restore_rest()
        assert list((await rest.wallet(POLL)).results) == ["wallet", "withdrawal"]


async def test_all_pages_of_executions_come_once() -> None:
    """More fills than one page holds: cursors go back unchanged, and nothing is missing or doubled."""
    async with running_exchange() as exchange, client_for(exchange) as rest:
        since_ms = exchange.now_ms() - 60_000
        expected = [row.exec_id for row in exchange.account.executions]
        for _ in range(5):
            expected += exchange.account.fill("BTCUSDT", "Buy", "0.5", fills=50)
        answer = await rest.executions(Purpose.GAP_FILL, since_ms=since_ms)

    found = [row["execId"] for row in _rows(answer, "linear")]
    assert sorted(found) == sorted(expected)
    assert len(found) > 200


async def test_a_month_of_executions_is_requested_week_by_week() -> None:
    """Bybit refuses spans above seven days, so an outage of weeks takes several requests."""
    async with running_exchange() as exchange, client_for(exchange) as rest:
        answer = await rest.executions(Purpose.GAP_FILL, since_ms=exchange.now_ms() - 30 * 86_400_000)
        requests = rest.status.requests

    assert len(_rows(answer, "linear")) == len(exchange.account.executions)
    assert requests > 2 * 5


async def test_executions_since_a_future_time_are_requested() -> None:
    """If our clock is ahead, a line may have gone live in Bybit's future; without a request no fill is found."""
    async with running_exchange() as exchange, client_for(exchange) as rest:
        await rest.request_clock()
        [fill] = exchange.account.fill("BTCUSDT", "Buy", "0.01")
        answer = await rest.executions(Purpose.GAP_FILL, since_ms=exchange.now_ms() + 60_000)

    assert fill in [row["execId"] for row in _rows(answer, "linear")]
    assert answer.time_ms


async def test_open_and_ended_orders_are_found() -> None:
    """An order that is still open, and one that was cancelled meanwhile, are both returned."""
    async with running_exchange() as exchange, client_for(exchange) as rest:
        since_ms = exchange.now_ms()
        open_id = exchange.account.place_order("BTCUSDT", "Buy", "0.01", "1000")
        ended_id = exchange.account.place_order("BTCUSDT", "Buy", "0.01", "1001")
        exchange.account.cancel_order(ended_id)
        answer = await rest.orders(Purpose.GAP_FILL, since_ms=since_ms)

    status = {row["orderId"]: row["orderStatus"] for row in _rows(answer, "linear")}
    assert (status[open_id], status[ended_id]) == ("New", "Cancelled")


@pytest.mark.parametrize("category", ["spot", "linear"])
async def test_recent_trades_need_no_key(category: str) -> None:
    """Gaps of public trades are filled without an account."""
    async with running_exchange(rate=500) as exchange, client_for(exchange, None) as rest:
        exchange.publish(category, "publicTrade.BTCUSDT", 5)
        answer = await rest.recent_trades(category, "BTCUSDT")

    assert answer.feed == f"{category}:publicTrade.BTCUSDT"
    assert _rows(answer, category)


async def test_missing_permission_is_named() -> None:
    """An operator must see which permission to add, not a number."""
    async with running_exchange() as exchange, client_for(exchange, KEYS["no-spot"]) as rest:
        with pytest.raises(RestRefused, match="permission Spot") as refusal:
            await rest.collateral(POLL)
        with pytest.raises(RestRefused, match="permission Spot"):
            await rest.loans(POLL)

    assert refusal.value.code == 10005


async def test_kinds_of_loans_that_an_account_does_not_have_are_skipped() -> None:
    """A refused kind does not affect the others, and is not requested again."""
    async with running_exchange() as exchange, client_for(exchange) as rest:
        exchange.fail_rest("ret_code", path="/v5/crypto-loan/", ret_code=10028, count=None)
        first = await rest.loans(POLL)
        requests = rest.status.requests
        second = await rest.loans(POLL)

    assert set(first.results) == set(second.results) == {"flexible", "fixed"}
    assert rest.status.requests - requests == 3  # flexible, and two pages of fixed


async def test_key_information_contains_no_secret() -> None:
    """The information decides whether the key is used; the key itself is not kept."""
    async with running_exchange() as exchange, client_for(exchange, KEYS["read-only"]) as rest:
        information = await rest.key_information()

    assert information.read_only == 1
    assert information.expires_at is not None
    assert KEYS["read-only"].api_key not in repr(information)


async def test_unknown_path_is_reported_and_not_requested_again() -> None:
    """A wrong BYBIT_REST_URL is no network failure: the operator must correct it."""
    async with running_exchange() as exchange, client_for(exchange) as rest:
        exchange.fail_rest("status", path="/v5/account", status=404, count=None)
        with pytest.raises(RestRefused, match="BYBIT_REST_URL"):
            await rest.wallet(POLL)
        assert rest.status.requests == 2  # the clock and the wallet


async def test_account_information_contains_the_kind_of_account() -> None:
    """Bybit's answer has neither `retExtInfo` nor `time` here; a unified account in cross margin causes no warning."""
    async with running_exchange() as exchange, client_for(exchange) as rest:
        information = await rest.account_information()
    assert information.margin_mode == "REGULAR_MARGIN"
    assert information.concerns == []


async def test_last_price_is_requested_without_a_key() -> None:
    """The price of a loan's collateral is public, and keeps Bybit's digits."""
    async with running_exchange() as exchange, client_for(exchange, key=None) as rest:
        price = await rest.last_price("BTCUSDT")
        with pytest.raises(RestRefused):
            await rest.last_price("NOSUCHUSDT")
    assert 10_000 < price < 1_000_000


async def test_status_of_a_symbol_is_found_whatever_it_is() -> None:
    """Bybit's list holds trading symbols only, unless it is asked for another status."""
    async with running_exchange(linear_symbols=("BTCUSDT", "NEWUSDT")) as exchange, client_for(exchange) as rest:
        exchange.set_status("linear", "NEWUSDT", "PreLaunch")
        assert await rest.trading_symbols("linear") == {"BTCUSDT"}
        statuses = [await rest.symbol_status("linear", f"{name}USDT") for name in ("BTC", "NEW", "NOSUCH")]
        exchange.fail_rest("ret_code", ret_code=10009)
        with pytest.raises(RestRefused):
            await rest.symbol_status("linear", "NOSUCHUSDT")

    assert statuses == ["Trading", "PreLaunch", None]


class _Slow:
    """AnswerReceiver each request with an empty list, a second of Bybit's time later than the one before."""

    def __init__(self) -> None:
        self.at_ms = AT_MS

    async def send(self, request: RestRequest) -> RestResponse:
        self.at_ms += 1_000
        return RestResponse(msgspec.Raw(b'{"list":[],"nextPageCursor":""}'), self.at_ms, LimitHeaders())

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize("part", ["positions", "orders", "executions", "loans"])
async def test_answer_of_several_requests_is_as_of_the_first(part: str) -> None:
    """What changed after the first request may be missing in it, so a gap must not end later."""
    http = _Slow()
    settings = Settings(bybit_api_key=SecretStr("k"), bybit_api_secret=SecretStr("s"))
    async with RestClient(settings, QUICK, open_http=lambda *_, **__: http) as rest:
        await rest.request_clock()
        began_ms = http.at_ms
        since = {"since_ms": began_ms} if part in ("orders", "executions") else {}
        answer: RestAnswer = await getattr(rest, part)(POLL, **since)

    assert http.at_ms > began_ms + 1_000, "one request was enough"
    assert answer.time_ms == began_ms + 1_000


class _Foreign:
    """Answers each request with the same result, whose text must not be in any error."""

    def __init__(self, result: bytes) -> None:
        self._result = msgspec.Raw(result)

    async def send(self, request: RestRequest) -> RestResponse:
        return RestResponse(self._result, AT_MS, LimitHeaders())

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (b"[]", "Expected `object`"),
        (b'{"marginMode":"private text \xff"}', "not valid UTF-8"),
        (b'{"private text":' + b"[" * 200_000, "recursion"),
    ],
    ids=["other-shape", "invalid-utf8", "deep-nesting"],
)
async def test_result_of_foreign_bytes_is_an_error_of_ours_without_them(result: bytes, words: str) -> None:
    """Any other exception would end the process; and the text of an error is logged and shown."""
    http = _Foreign(result)
    async with RestClient(Settings(), QUICK, open_http=lambda *_, **__: http) as rest:
        await rest.request_clock()
        with pytest.raises(RestUnavailable, match=words) as raised:
            await rest.account_information()

    assert "private text" not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize("wallet", [b'{"list":[{"coin":[{"coin":"\xff"}]}]}', b'{"list":' + b"[" * 200_000])
async def test_wallet_of_foreign_bytes_is_returned_without_what_may_be_transferred(wallet: bytes) -> None:
    """Its coins are unknown; the answer is journalled as it is, and becomes a dead letter."""
    http = _Foreign(wallet)
    async with RestClient(Settings(), QUICK, open_http=lambda *_, **__: http) as rest:
        await rest.request_clock()
        answer = await rest.wallet(POLL)

    assert {name: bytes(result) for name, result in answer.results.items()} == {"wallet": wallet}
