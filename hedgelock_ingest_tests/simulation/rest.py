"""The exchange's REST in memory: answers with the account and market at a past or present time, and faults."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

import msgspec

from hedgelock_ingest.bybit.rest_port import RestRequest, RestResponse
from hedgelock_ingest.errors import RestError, RestUnavailable
from hedgelock_ingest.protocol.rate_limits import LimitHeaders
from hedgelock_ingest.protocol.rest_codes import error_for_code, error_for_status
from hedgelock_ingest_tests.simulation.account import MemoryAccount, row_at
from hedgelock_ingest_tests.simulation.lifetime import ClockedLifetime
from hedgelock_ingest_tests.simulation.market import MemoryMarket
from hedgelock_ingest_tests.simulation.private_rows import ACCOUNT_RESULT, KEY_RESULT, flexible_row, wallet_row
from hedgelock_ingest_tests.simulation.sockets import Wires

_ANSWER_S = (0.02, 0.12)
_OPEN = ("New", "PartiallyFilled")
_KEY_INVALID = 10_003
_ALWAYS_OF_NOW = ("get_server_time", "get_api_key_information", "get_account_info")
_WRONG = (b"{}", b"[]", b'{"list":7}', b'{"list":[{"symbol":7}]}', b'"maintenance"')

type Parameters = Mapping[str, str | int]


@dataclass(slots=True)
class RestFaults:
    """
    The faults of REST, in seconds of the clock.

    `late_by_s` is the delay of an answer after it was made. `behind_s` is by how much the state and `time` of an answer
    are older than the request, by method; the empty method is the default of all; the time is not if answers are
    `is_dated_now`. `wrong_answers` counts results of a
    wrong shape, `histories_by_creation` filters order histories by when an order was placed instead of when it changed.
    `old_wallets` counts wallets that were older than the last wallet frame when they arrived.
    """

    late_by_s: float = 0.0
    behind_s: dict[str, float] = field(default_factory=dict)
    is_dated_now: bool = False
    limited_until_s: float = 0.0
    down_until_s: float = 0.0
    hanging_until_s: float = 0.0
    wrong_until_s: float = 0.0
    key_refused_until_s: float = 0.0
    old_wallets: int = 0
    wrong_answers: int = 0
    histories_by_creation: bool = False

    def behind(self, method: str) -> float:
        """Return how far a method's answers are behind, in seconds."""
        return 0.0 if method in _ALWAYS_OF_NOW else self.behind_s.get(method, self.behind_s.get("", 0.0))


class MemoryHttp:
    """One HTTP session of a process."""

    def __init__(
        self,
        wires: Wires,
        lifetime: ClockedLifetime,
        random: Random,
        faults: RestFaults,
        account: MemoryAccount,
        markets: Mapping[str, MemoryMarket],
    ) -> None:
        self._wires = wires
        self._lifetime = lifetime
        self._random = random
        self._faults = faults
        self._account = account
        self._markets = markets

    async def send(self, request: RestRequest) -> RestResponse:
        """
        Send one request and wait for its answer, which shows the state at a time between the two.

        Raises:
            RestError: As `BybitHttp` raises it.
        """
        random, faults, clock = self._random, self._faults, self._wires.clock
        there_s, back_s = random.uniform(*_ANSWER_S) / 2, random.uniform(*_ANSWER_S) / 2
        await clock.sleep(there_s)
        while clock.monotonic() < faults.hanging_until_s:  # and for ever: the request is lost
            await clock.sleep(3600.0)
        error = self._error(request)
        made_ms = self._wires.now_ms() - int(faults.behind(request.method) * 1000)
        answer = None if error is not None else self._answer(request, made_ms)
        await clock.sleep(back_s + faults.late_by_s)
        if error is not None:
            raise error
        assert answer is not None
        is_wallet = request.method == "get_wallet_balance"
        faults.old_wallets += is_wallet and made_ms < self._account.steps.coins[-1].at_ms
        return answer

    def close(self) -> None:
        """Close the session."""

    def _error(self, request: RestRequest) -> RestError | None:
        faults, now_s = self._faults, self._wires.clock.monotonic()
        if now_s < faults.down_until_s:
            if self._random.random() < 0.5:
                return RestUnavailable("no answer from the exchange (ConnectionResetError)")
            return error_for_status(502, "the exchange answers HTTP 502")
        if now_s < faults.limited_until_s:
            return error_for_code(10_006, "Too many visits!", wait_s=self._random.uniform(0.2, 1.0))
        if now_s < faults.key_refused_until_s and request.is_signed:
            return error_for_code(_KEY_INVALID, "API key is invalid.")
        if now_s < faults.wrong_until_s and self._random.random() < 0.5:
            return RestUnavailable("the exchange does not answer as Bybit does (17 bytes of text/html)")
        return None

    def _answer(self, request: RestRequest, at_ms: int) -> RestResponse:
        method, faults = request.method, self._faults
        time_ms = self._wires.now_ms() if faults.is_dated_now else at_ms
        if self._wires.clock.monotonic() < faults.wrong_until_s:
            faults.wrong_answers += 1
            return RestResponse(msgspec.Raw(self._random.choice(_WRONG)), time_ms, LimitHeaders())
        result = self._ANSWERS[method](self, request.parameters, at_ms)
        raw = result if isinstance(result, bytes) else msgspec.json.encode(result)
        return RestResponse(msgspec.Raw(raw), 0 if method == "get_account_info" else time_ms, LimitHeaders())

    # Of the account

    def _wallet(self, _: Parameters, at_ms: int) -> object:
        coins = row_at(self._account.steps.coins, at_ms) or self._account.steps.coins[0].row
        return {"list": [wallet_row({name: balance for name, balance in coins.items() if balance != "0"})]}

    def _transferable(self, parameters: Parameters, at_ms: int) -> object:
        coins = row_at(self._account.steps.coins, at_ms) or self._account.steps.coins[0].row
        amounts = {name: coins.get(name, "0") for name in str(parameters["coinName"]).split(",")}
        return {"availableWithdrawal": next(iter(amounts.values())), "availableWithdrawalMap": amounts}

    def _positions(self, parameters: Parameters, at_ms: int) -> object:
        rows: list[dict[str, Any]] = []
        if parameters.get("settleCoin") == "USDT":
            for symbol, steps in self._account.steps.positions.items():
                row = row_at(steps, at_ms) or steps[0].row
                if row["size"] != "0":  # the price changes while the position does not
                    rows.append(row | {"markPrice": str(self._account.mark(symbol))})
        return {"list": rows, "nextPageCursor": "", "category": "linear"}

    def _open_orders(self, parameters: Parameters, at_ms: int) -> object:
        if parameters.get("settleCoin") != "USDT":
            return _page([], parameters)
        return _page([row for row in self._orders(at_ms) if row["orderStatus"] in _OPEN], parameters)

    def _order_history(self, parameters: Parameters, at_ms: int) -> object:
        if parameters["category"] != "linear":
            return _page([], parameters)
        name = "createdTime" if self._faults.histories_by_creation else "updatedTime"
        begin, end = int(parameters["startTime"]), int(parameters["endTime"])
        return _page(
            [row for row in self._orders(at_ms) if row["orderStatus"] not in _OPEN and begin <= int(row[name]) <= end],
            parameters,
        )

    def _orders(self, at_ms: int) -> Iterable[dict[str, Any]]:
        for steps in reversed(self._account.steps.orders.values()):
            row = row_at(steps, at_ms)
            if row is not None:
                yield row

    def _executions(self, parameters: Parameters, at_ms: int) -> object:
        if parameters["category"] != "linear":
            return _page([], parameters)
        begin, end = int(parameters["startTime"]), min(int(parameters["endTime"]), at_ms)
        steps = reversed(self._account.steps.executions)
        return _page([step.row for step in steps if begin <= step.at_ms <= end], parameters)

    def _collateral(self, _: Parameters, at_ms: int) -> object:
        return row_at(self._account.steps.loans, at_ms) or self._account.steps.loans[0].row

    def _flexible(self, parameters: Parameters, at_ms: int) -> object:
        loan = row_at(self._account.steps.loans, at_ms) or self._account.steps.loans[0].row
        return {"list": [flexible_row(loan["totalDebt"])]}

    def _no_loans(self, _: Parameters, at_ms: int) -> object:
        return {"list": [], "nextPageCursor": ""}

    def _key(self, _: Parameters, at_ms: int) -> object:
        return KEY_RESULT

    def _account_info(self, _: Parameters, at_ms: int) -> object:
        return ACCOUNT_RESULT

    # Of the market

    def _time(self, _: Parameters, at_ms: int) -> object:
        return {"timeSecond": str(at_ms // 1000), "timeNano": str(at_ms * 1_000_000)}

    def _trades(self, parameters: Parameters, at_ms: int) -> bytes:
        category, limit = str(parameters["category"]), int(parameters["limit"])
        newest = [one.rest_row for one in reversed(self._markets[category].trades) if one.matched_ms <= at_ms][:limit]
        return f'{{"category":"{category}","list":[{",".join(newest)}]}}'.encode()

    def _tickers(self, parameters: Parameters, at_ms: int) -> object:
        market = self._markets[str(parameters["category"])]
        return {"category": market.category, "list": [market.ticker()]}

    def _instruments(self, parameters: Parameters, at_ms: int) -> object:
        return {"list": [{"symbol": parameters["symbol"], "status": "Trading"}], "nextPageCursor": ""}

    _ANSWERS: Mapping[str, Callable[["MemoryHttp", Parameters, int], object]] = {
        "get_server_time": _time,
        "get_api_key_information": _key,
        "get_account_info": _account_info,
        "get_wallet_balance": _wallet,
        "get_transferable_amount": _transferable,
        "get_position_new_crypto_loan": _collateral,
        "get_flexible_loans_flexible_crypto_loan": _flexible,
        "get_borrowing_contract_info_fixed_crypto_loan": _no_loans,
        "get_legacy_loans": _no_loans,
        "get_positions": _positions,
        "get_open_orders": _open_orders,
        "get_order_history": _order_history,
        "get_executions": _executions,
        "get_public_trade_history": _trades,
        "get_tickers": _tickers,
        "get_instruments_info": _instruments,
    }


def _page(rows: list[dict[str, Any]], parameters: Parameters) -> dict[str, Any]:
    """Return one page of rows, which are newest first; the cursor is the start of the next page."""
    begin, limit = int(parameters.get("cursor", 0)), int(parameters["limit"])
    cursor = str(begin + limit) if len(rows) > begin + limit else ""
    return {"list": rows[begin : begin + limit], "nextPageCursor": cursor, "category": parameters["category"]}
