"""Client of Bybit's REST: the account, its loans, missed trades, and the key."""

import asyncio
import re
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from itertools import batched
from random import Random
from typing import Any, NamedTuple, Self

import msgspec
import structlog

from hedgelock_ingest.bybit.rest_http import open_http
from hedgelock_ingest.bybit.rest_port import Credentials, OpenHttp, RestRequest, RestTiming
from hedgelock_ingest.bybit.rest_session import RestSession, RestStatus
from hedgelock_ingest.clock import Clock, SystemClock
from hedgelock_ingest.errors import RestError, RestRefused, RestUnavailable, first_error
from hedgelock_ingest.protocol.account_information import AccountInformation
from hedgelock_ingest.protocol.api_key_rules import KeyInformation
from hedgelock_ingest.protocol.channels import feed_name
from hedgelock_ingest.protocol.frames import Category
from hedgelock_ingest.protocol.messages import DECODE_ERRORS, decode_problem
from hedgelock_ingest.protocol.private_messages import Digits
from hedgelock_ingest.protocol.rest_codes import NOT_FOR_THIS_ACCOUNT, PARAMETER_WRONG, PERMISSION_MISSING
from hedgelock_ingest.protocol.rest_messages import (
    CATEGORIES_BY_PART,
    SETTLE_COINS,
    TRANSFERABLE,
    Part,
    Purpose,
    RestAnswer,
    TransferableResult,
)
from hedgelock_ingest.settings import Settings

log = structlog.get_logger(__name__)

WINDOW_MS = 7 * 86_400_000
"""The longest span of one request. Source: Bybit V5, Get Trade History and Get Order History, `endTime`."""

OVERLAP_MS = 10_000
"""How far before the last known data histories are requested: rows may appear later than the frames about them."""

_RARE_CATEGORIES = ("inverse", "option", "spot")
"""Not available to every account or key: where Bybit refuses them, the others are taken without them."""

_COINS_PER_REQUEST = 20
"""Source: Bybit V5, Account, Get Transferable Amount (Unified), `coinName`."""

_TRANSFERABLE_PATIENCE_S = 2.0
"""How long balances wait for the amounts that may be transferred."""

_TRANSFERABLE_REFUSED_S = 3_600.0
"""How long they are not requested after a refusal because of the account or key, which may be changed at Bybit."""

_MAX_PAGES = 1_000
_STATUSES_BY_CATEGORY = {"spot": ("Trading",), "linear": ("Trading", "PreLaunch", "Delivering", "Closed")}
_PERMISSION_BY_PART = {
    Part.WALLET: "Contract or Spot",
    Part.POSITIONS: "Contract - Positions",
    Part.ORDERS: "Contract - Orders and Spot",
    Part.EXECUTIONS: "Contract - Orders and Spot",
    Part.COLLATERAL: "Spot",
    Part.LOANS: "Spot",
}


class _Page(msgspec.Struct, rename="camel"):
    rows: list[msgspec.Raw] | None = msgspec.field(name="list")  # required: an answer without it is not a list
    next_page_cursor: str | None = None


class _Wallet(msgspec.Struct):
    coin: list[dict[str, Any]]


class _Wallets(msgspec.Struct):
    rows: list[_Wallet] = msgspec.field(name="list")


class _Ticker(msgspec.Struct):
    last_price: Digits = msgspec.field(name="lastPrice")


class _Tickers(msgspec.Struct):
    rows: list[_Ticker] = msgspec.field(name="list")


class _Instrument(msgspec.Struct):
    symbol: str
    status: str = "Trading"


class _List(NamedTuple):
    rows: list[msgspec.Raw]
    time_ms: int


def _result(*lists: _List) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode({"list": [row for each in lists for row in each.rows]}))


class RestClient:
    """
    Requests data of one account; every answer holds Bybit's rows unchanged.

    All methods raise `RestError`; its `transient` states whether a later attempt may succeed.
    """

    def __init__(
        self,
        settings: Settings,
        timing: RestTiming | None = None,
        *,
        clock: Clock | None = None,
        open_http: OpenHttp = open_http,
        random: Random | None = None,
    ) -> None:
        """Prepare; nothing is connected. Without a key only public requests are possible."""
        self._clock = clock or SystemClock()
        self._session = RestSession(
            settings.bybit_rest_url,
            _credentials(settings),
            requests_per_second=settings.bybit_rest_requests_per_second,
            timing=timing,
            clock=self._clock,
            open_http=open_http,
            random=random,
        )
        self._loan_kinds = dict(_LOANS)
        self._transferable_after_s = float("-inf")
        self._lacks_transferable = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    @property
    def status(self) -> RestStatus:
        """Status of REST."""
        return self._session.status

    @property
    def has_key(self) -> bool:
        """Whether account data can be requested."""
        return self._session.has_key

    def now_ms(self) -> int:
        """Return Bybit's time, or our clock's while it is unknown."""
        return self._session.now_ms()

    def probe_now(self) -> None:
        """Send the next request although earlier ones failed: a line has just connected, so Bybit can be reached."""
        self._session.probe_now()

    async def request_clock(self) -> None:
        """Request Bybit's time once; `now_ms` follows it from then on."""
        await self._session.measure_clock()

    async def server_time(self) -> int:
        """Request Bybit's time in milliseconds."""
        return (await self._session.send(RestRequest("get_server_time", {}, is_signed=False))).time_ms

    async def key_information(self) -> KeyInformation:
        """Request the information about our key."""
        response = await self._session.send(RestRequest("get_api_key_information"))
        return _decoded(response.result, KeyInformation)

    async def account_information(self) -> AccountInformation:
        """Request the kind of account and its margin mode."""
        response = await self._session.send(RestRequest("get_account_info"))
        return _decoded(response.result, AccountInformation)

    async def wallet(self, purpose: Purpose) -> RestAnswer:
        """
        Request all balances of the unified account, and how much of each may be transferred.

        Without an answer about the latter, as far as there is none, the balances are returned alone.
        """
        answer = await self._one(Part.WALLET, purpose, "wallet", RestRequest("get_wallet_balance", _UNIFIED))
        amounts = await self._transferable(_coins_in(answer.results["wallet"]))
        if not amounts:
            return answer
        result = msgspec.Raw(msgspec.json.encode(TransferableResult(amounts)))
        return msgspec.structs.replace(answer, results={**answer.results, TRANSFERABLE: result})

    async def collateral(self, purpose: Purpose) -> RestAnswer:
        """Request the position of the loan account: debt, collateral, LTV."""
        return await self._one(Part.COLLATERAL, purpose, "position", RestRequest("get_position_new_crypto_loan"))

    async def loans(self, purpose: Purpose) -> RestAnswer:
        """Request all loans; kinds not available to this account or key are skipped from then on."""
        results: dict[str, msgspec.Raw] = {}
        refused: dict[str, RestRefused] = {}
        time_ms = 0
        for kind, request in list(self._loan_kinds.items()):
            try:
                found = await self._all([request])
            except RestRefused as error:
                if error.code not in NOT_FOR_THIS_ACCOUNT:
                    raise
                refused[kind] = error
            else:
                results[kind], time_ms = _result(found), time_ms or found.time_ms
        if not results:
            raise _explained(Part.LOANS, next(iter(refused.values())))
        for kind in refused:
            del self._loan_kinds[kind]
        return RestAnswer(Part.LOANS, purpose, time_ms, results)

    async def positions(self, purpose: Purpose) -> RestAnswer:
        """Request all open positions, of all categories that the stream carries."""
        return await self._listed(
            Part.POSITIONS, purpose, lambda category: [[one] for one in _lists("get_positions", category, limit=200)]
        )

    async def orders(self, purpose: Purpose, *, since_ms: int) -> RestAnswer:
        """Request the open orders, and all orders changed since."""
        spans = list(_windows(since_ms, self.now_ms()))
        return await self._listed(
            Part.ORDERS,
            purpose,
            lambda category: [
                *([one] for one in _lists("get_open_orders", category, limit=50)),
                _history("get_order_history", category, spans, limit=50),
            ],
        )

    async def executions(self, purpose: Purpose, *, since_ms: int, until_ms: int | None = None) -> RestAnswer:
        """Request all executions since, up to now or `until_ms`; includes some from before and after."""
        spans = list(_windows(since_ms, self.now_ms() if until_ms is None else until_ms))
        return await self._listed(
            Part.EXECUTIONS, purpose, lambda category: [_history("get_executions", category, spans, limit=100)]
        )

    async def recent_trades(self, category: str, symbol: str) -> RestAnswer:
        """
        Request the last public trades of a symbol, as many as Bybit returns, for the gaps of its feed.

        Source: Bybit V5, Market, Get Public Recent Trading History: 60 of spot, 1,000 of others.
        """
        parameters = {"category": category, "symbol": symbol, "limit": 60 if category == Category.SPOT else 1_000}
        response = await self._session.send(RestRequest("get_public_trade_history", parameters, is_signed=False))
        feed = feed_name(Category(category), f"publicTrade.{symbol}")
        return RestAnswer(Part.TRADES, Purpose.GAP_FILL, response.time_ms, {category: response.result}, feed)

    async def ticker(self, category: str, symbol: str) -> RestAnswer:
        """Request the present ticker of a symbol. Source: Bybit V5, Market, Get Tickers."""
        parameters = {"category": category, "symbol": symbol}
        response = await self._session.send(RestRequest("get_tickers", parameters, is_signed=False))
        feed = feed_name(Category(category), f"tickers.{symbol}")
        return RestAnswer(Part.TICKER, Purpose.POLL, response.time_ms, {category: response.result}, feed)

    async def trading_symbols(self, category: str) -> set[str]:
        """Request all symbols of a category that are trading. Source: Bybit V5, Market, Get Instruments Info."""
        return {row.symbol for row in await self._instruments({"category": category, "limit": 1_000})}

    async def symbol_status(self, category: str, symbol: str) -> str | None:
        """
        Request the status of a symbol, such as `Trading` or `PreLaunch`; None for one that Bybit does not list.

        Source: Bybit V5, Market, Get Instruments Info: lists hold the trading symbols unless another status is given.
        """
        for status in _STATUSES_BY_CATEGORY[category]:
            try:
                found = await self._instruments({"category": category, "symbol": symbol, "status": status})
            except RestRefused as error:
                if error.code != PARAMETER_WRONG:
                    raise
                continue
            if found:
                return found[0].status
        return None

    async def _instruments(self, parameters: dict[str, str | int]) -> list[_Instrument]:
        found = await self._all([RestRequest("get_instruments_info", parameters, is_signed=False)])
        return [_decoded(row, _Instrument) for row in found.rows]

    async def last_price(self, symbol: str) -> Decimal:
        """Request the last price of a spot symbol; Bybit refuses one that it does not trade."""
        request = RestRequest("get_tickers", {"category": "spot", "symbol": symbol}, is_signed=False)
        tickers = _decoded((await self._session.send(request)).result, _Tickers).rows
        if not tickers:
            raise RestUnavailable(f"Bybit returned no price of {symbol}")
        return Decimal(tickers[0].last_price)

    async def _transferable(self, coins: list[str]) -> dict[str, msgspec.Raw]:
        """Request what may be transferred; a refusal because of the account or key ends these requests for a while."""
        amounts: dict[str, msgspec.Raw] = {}
        problem: str | None = None
        if not coins or self._clock.monotonic() < self._transferable_after_s:
            return amounts
        for names in batched(coins, _COINS_PER_REQUEST):
            request = RestRequest("get_transferable_amount", {"coinName": ",".join(names)}, is_optional=True)
            try:
                async with self._clock.timeout(_TRANSFERABLE_PATIENCE_S):
                    response = await self._session.send(request)
                amounts |= _decoded(response.result, TransferableResult).availableWithdrawalMap
            except TimeoutError:
                problem = f"no answer within {_TRANSFERABLE_PATIENCE_S:g} s"
                break
            except RestError as error:
                problem = str(error)
                if isinstance(error, RestRefused) and error.code in NOT_FOR_THIS_ACCOUNT:
                    self._transferable_after_s = self._clock.monotonic() + _TRANSFERABLE_REFUSED_S
                    break
        self._note_transferable(problem)
        return amounts

    def _note_transferable(self, problem: str | None) -> None:
        if problem is not None and not self._lacks_transferable:
            log.warning("transferable_amounts_missing", reason=problem)
        elif problem is None and self._lacks_transferable:
            log.info("transferable_amounts_recovered")
        self._lacks_transferable = problem is not None

    async def _one(self, part: Part, purpose: Purpose, name: str, request: RestRequest) -> RestAnswer:
        try:
            response = await self._session.send(request)
        except RestRefused as error:
            raise _explained(part, error) from error
        return RestAnswer(part, purpose, response.time_ms, {name: response.result})

    async def _listed(
        self, part: Part, purpose: Purpose, requests_of: Callable[[str], list[list[RestRequest]]]
    ) -> RestAnswer:
        """Request the lists of all categories; the answer names those that Bybit refuses to this account or key."""
        refused: dict[str, str] = {}

        async def request(category: str, requests: list[RestRequest]) -> _List | None:
            try:
                return await self._all(requests)
            except RestRefused as error:
                explained = _explained(part, error, permission="Options" if category == "option" else None)
                if category not in _RARE_CATEGORIES:
                    raise explained from error
                refused[category] = str(explained)
                return None

        # All at once, so that a part that was requested first is not answered last: requests are sent in their order.
        try:
            async with asyncio.TaskGroup() as tasks:
                pending = [
                    (category, tasks.create_task(request(category, requests)))
                    for category in CATEGORIES_BY_PART[part]
                    for requests in requests_of(category)
                ]
        except* RestError as errors:
            raise first_error(errors) from errors
        lists: dict[str, list[_List]] = {}
        for category, task in pending:
            found = task.result()
            if found is not None and category not in refused:
                lists.setdefault(category, []).append(found)
        time_ms = min(each.time_ms for found in lists.values() for each in found)
        results = {name: _result(*found) for name, found in lists.items()}
        return RestAnswer(part, purpose, time_ms, results, refused=refused)

    async def _all(self, requests: Iterable[RestRequest]) -> _List:
        """Send requests that each return a list, and join all pages; the time is that of the first answer."""
        rows: list[msgspec.Raw] = []
        time_ms = 0
        for request in requests:
            cursor = ""
            for _ in range(_MAX_PAGES):
                # Cursors come percent-encoded and are sent back unchanged.
                parameters = {**request.parameters, "cursor": cursor} if cursor else request.parameters
                response = await self._session.send(request._replace(parameters=parameters))
                page = _decoded(response.result, _Page)
                rows += page.rows or []
                time_ms = time_ms or response.time_ms
                if not page.rows or not page.next_page_cursor or page.next_page_cursor == cursor:
                    break
                cursor = page.next_page_cursor
        return _List(rows, time_ms)


_UNIFIED: dict[str, str | int] = {"accountType": "UNIFIED"}

_LOANS = {
    "flexible": RestRequest("get_flexible_loans_flexible_crypto_loan"),
    "fixed": RestRequest("get_borrowing_contract_info_fixed_crypto_loan", {"limit": 100}),
    "legacy": RestRequest("get_legacy_loans", {"limit": 100}),
}


def _credentials(settings: Settings) -> Credentials | None:
    if settings.bybit_api_key is None or settings.bybit_api_secret is None:
        return None
    return Credentials(settings.bybit_api_key.get_secret_value(), settings.bybit_api_secret.get_secret_value())


def _lists(method: str, category: str, *, limit: int) -> list[RestRequest]:
    """Return the requests for the present positions or open orders; linear ones are listed by settle coin."""
    parameters: dict[str, str | int] = {"category": category, "limit": limit}
    if category != "linear":
        return [RestRequest(method, parameters)]
    return [RestRequest(method, parameters | {"settleCoin": coin}) for coin in SETTLE_COINS]


def _history(method: str, category: str, spans: Iterable[tuple[int, int]], *, limit: int) -> list[RestRequest]:
    return [
        RestRequest(method, {"category": category, "startTime": begin, "endTime": end, "limit": limit})
        for begin, end in spans
    ]


_COIN_NAME = re.compile("[A-Z0-9]+")


def _coins_in(wallet: msgspec.Raw) -> list[str]:
    """List the coins of a wallet that can be requested; none if its shape is unknown."""
    try:
        accounts = msgspec.json.decode(wallet, type=_Wallets).rows
    except DECODE_ERRORS:
        return []
    names = [row.get("coin") for account in accounts for row in account.coin]
    return [name for name in dict.fromkeys(names) if isinstance(name, str) and _COIN_NAME.fullmatch(name)]


def _windows(since_ms: int, until_ms: int) -> Iterator[tuple[int, int]]:
    """Split a span, extended by `OVERLAP_MS` before and a second after, into spans that Bybit accepts."""
    # `since_ms` may lie ahead of Bybit's time if it came from our clock.
    begin, end = min(since_ms, until_ms) - OVERLAP_MS, until_ms + 1_000
    while begin < end:
        yield begin, min(begin + WINDOW_MS, end)
        begin += WINDOW_MS


def _explained(part: Part, error: RestRefused, *, permission: str | None = None) -> RestRefused:
    if error.code != PERMISSION_MISSING:
        return error
    permission = permission or _PERMISSION_BY_PART[part]
    return RestRefused(
        f"the API key lacks the permission {permission}; add it at Bybit ({error.code})", code=error.code
    )


def _decoded[T](result: msgspec.Raw, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(result, type=kind)
    except DECODE_ERRORS as error:
        # Without the cause: a UnicodeDecodeError contains the text that Bybit sent.
        raise RestUnavailable(f"Bybit's answer differs from its documentation: {decode_problem(error)}") from None
