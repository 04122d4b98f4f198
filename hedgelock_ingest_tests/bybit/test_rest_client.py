"""What REST is asked for, and how its answers arrive."""

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from pydantic import SecretStr

from hedgelock_ingest.bybit.rest_client import RestClient
from hedgelock_ingest.bybit.rest_port import Question, Reply
from hedgelock_ingest.errors import RestRefused
from hedgelock_ingest.protocol.account_information import AccountInformation
from hedgelock_ingest.protocol.frames import Frame
from hedgelock_ingest.protocol.rate_limit import LimitHeaders
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


async def test_whole_account_is_translated_from_answers_alone() -> None:
    """Wallet, positions, collateral and loans together give the merged view, with the exchange's own figures."""
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
    """A balance with trailing zeros, or more digits than a float holds, is not touched on its way."""
    async with running_exchange() as exchange, client_for(exchange) as rest:
        exchange.account.deposit("BTC", "0.123456789012345678")
        answer = await rest.wallet(POLL)
        wallet = exchange.account.wallet()

    coins = {coin["coin"]: coin for coin in _rows(answer, "wallet")[0]["coin"]}
    assert coins["BTC"]["walletBalance"] == next(c["walletBalance"] for c in wallet["coin"] if c["coin"] == "BTC")


async def test_all_pages_of_executions_come_once() -> None:
    """More fills than one page holds: cursors go back unchanged, and nothing is missing or double."""
    async with running_exchange() as exchange, client_for(exchange) as rest:
        since_ms = exchange.now_ms() - 60_000
        expected = [row.exec_id for row in exchange.account.executions]
        for _ in range(5):
            expected += exchange.account.fill("BTCUSDT", "Buy", "0.5", fills=50)
        answer = await rest.executions(Purpose.GAP_FILL, since_ms=since_ms)

    found = [row["execId"] for row in _rows(answer, "linear")]
    assert sorted(found) == sorted(expected)
    assert len(found) > 200


async def test_a_month_of_executions_is_asked_week_by_week() -> None:
    """Bybit refuses spans above seven days, so an outage of weeks takes several questions."""
    async with running_exchange() as exchange, client_for(exchange) as rest:
        answer = await rest.executions(Purpose.GAP_FILL, since_ms=exchange.now_ms() - 30 * 86_400_000)
        requests = rest.status.requests

    assert len(_rows(answer, "linear")) == len(exchange.account.executions)
    assert requests > 2 * 5


async def test_executions_since_a_time_that_has_not_come_yet_are_asked_for() -> None:
    """Where our clock is ahead, a line may have gone live in Bybit's future; asking nothing would find no fill."""
    async with running_exchange() as exchange, client_for(exchange) as rest:
        await rest.learn_clock()
        [fill] = exchange.account.fill("BTCUSDT", "Buy", "0.01")
        answer = await rest.executions(Purpose.GAP_FILL, since_ms=exchange.now_ms() + 60_000)

    assert fill in [row["execId"] for row in _rows(answer, "linear")]
    assert answer.time_ms


async def test_open_and_ended_orders_are_found() -> None:
    """An order that is still open, and one that was cancelled meanwhile, both come back."""
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
    """Public trades are healed without an account."""
    async with running_exchange(rate=500) as exchange, client_for(exchange, None) as rest:
        exchange.publish(category, "publicTrade.BTCUSDT", 5)
        answer = await rest.recent_trades(category, "BTCUSDT")

    assert answer.feed == f"{category}:publicTrade.BTCUSDT"
    assert _rows(answer, category)


async def test_missing_permission_is_named() -> None:
    """An operator must read which permission to add, not a number."""
    async with running_exchange() as exchange, client_for(exchange, KEYS["no-spot"]) as rest:
        with pytest.raises(RestRefused, match="permission Spot") as refusal:
            await rest.collateral(POLL)
        with pytest.raises(RestRefused, match="permission Spot"):
            await rest.loans(POLL)

    assert refusal.value.code == 10005


async def test_kinds_of_loans_that_an_account_has_not_are_left_out() -> None:
    """A refused kind takes nothing from the others, and is not asked for again."""
    async with running_exchange() as exchange, client_for(exchange) as rest:
        exchange.fail_rest("ret_code", path="/v5/crypto-loan/", ret_code=10028, count=None)
        first = await rest.loans(POLL)
        asked = rest.status.requests
        second = await rest.loans(POLL)

    assert set(first.results) == set(second.results) == {"flexible", "fixed"}
    assert rest.status.requests - asked == 3  # flexible, and two pages of fixed


async def test_key_describes_itself_without_its_secret() -> None:
    """What is read of the key decides whether it is used; the key itself is not kept."""
    async with running_exchange() as exchange, client_for(exchange, KEYS["read-only"]) as rest:
        information = await rest.key_information()

    assert information.read_only == 1
    assert information.expires_at is not None
    assert KEYS["read-only"].api_key not in repr(information)


async def test_unknown_path_is_told_and_not_asked_again() -> None:
    """A wrong BYBIT_REST_URL is no network trouble: the operator must mend it."""
    async with running_exchange() as exchange, client_for(exchange) as rest:
        exchange.fail_rest("status", path="/v5/account", status=404, count=None)
        with pytest.raises(RestRefused, match="BYBIT_REST_URL"):
            await rest.wallet(POLL)
        assert rest.status.requests == 2  # the clock and the wallet


async def test_account_information_says_what_kind_of_account_it_is() -> None:
    """Bybit's answer has neither `retExtInfo` nor `time` here; a unified account in cross margin needs no word."""
    async with running_exchange() as exchange, client_for(exchange) as rest:
        information = await rest.account_information()
    assert information.marginMode == "REGULAR_MARGIN"
    assert information.concerns == []


@pytest.mark.parametrize(
    ("status", "mode", "word"),
    [(1, "REGULAR_MARGIN", "not a unified"), (5, "ISOLATED_MARGIN", "isolated")],
)
def test_account_whose_figures_mean_something_else_is_told(status: int, mode: str, word: str) -> None:
    """An operator must know why a part of the account is missing."""
    [concern] = AccountInformation(status, mode).concerns
    assert word in concern


async def test_last_price_is_asked_without_a_key() -> None:
    """What a loan's collateral is worth is public, and comes with Bybit's digits."""
    async with running_exchange() as exchange, client_for(exchange, key=None) as rest:
        price = await rest.last_price("BTCUSDT")
        with pytest.raises(RestRefused):
            await rest.last_price("NOSUCHUSDT")
    assert 10_000 < price < 1_000_000


class _Slow:
    """Answers each question with an empty list, a second of Bybit's time later than the one before."""

    def __init__(self) -> None:
        self.at_ms = AT_MS

    async def ask(self, question: Question) -> Reply:
        self.at_ms += 1_000
        return Reply(msgspec.Raw(b'{"list":[],"nextPageCursor":""}'), self.at_ms, LimitHeaders())

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize("part", ["positions", "orders", "executions", "loans"])
async def test_answer_of_several_requests_is_as_of_the_first(part: str) -> None:
    """What changed after the first request may be missing in it, so a gap must not end later."""
    http = _Slow()
    settings = Settings(bybit_api_key=SecretStr("k"), bybit_api_secret=SecretStr("s"))
    async with RestClient(settings, QUICK, open_http=lambda *_, **__: http) as rest:
        await rest.learn_clock()
        began_ms = http.at_ms
        since = {"since_ms": began_ms} if part in ("orders", "executions") else {}
        answer: RestAnswer = await getattr(rest, part)(POLL, **since)

    assert http.at_ms > began_ms + 1_000, "one request was enough"
    assert answer.time_ms == began_ms + 1_000
