"""The signed endpoints of positions, orders and executions; each answers for one category only."""

from collections.abc import Mapping
from typing import Any

from hedgelock_ingest.errors import SandboxError
from hedgelock_ingest.sandbox.exchange.account.categories import RULES, CategoryRules
from hedgelock_ingest.sandbox.exchange.account.order import Fill, Order
from hedgelock_ingest.sandbox.exchange.account.position import HeldPosition
from hedgelock_ingest.sandbox.exchange.account.state import AccountState
from hedgelock_ingest.sandbox.exchange.clock import ExchangeClock
from hedgelock_ingest.sandbox.exchange.keys import ApiKey
from hedgelock_ingest.sandbox.exchange.rest.access_control import Answer, Endpoint
from hedgelock_ingest.sandbox.exchange.rest.envelope import PARAMETER_ERROR, RequestRefused
from hedgelock_ingest.sandbox.exchange.rest.pages import limited, page, window

_CLOSED_KEPT = 500
_SYMBOL_MISSING = "Missing some parameters that must be filled in, symbol or settleCoin"


class TradingEndpoints:
    """`/v5/position/list`, `/v5/order/…` and `/v5/execution/list`."""

    def __init__(self, clock: ExchangeClock) -> None:
        self._clock = clock

    def endpoints(self) -> list[Endpoint]:
        """Return the endpoints, with Bybit's limits."""
        return [
            _endpoint("/v5/position/list", self._positions),
            _endpoint("/v5/order/realtime", self._open_orders),
            _endpoint("/v5/order/history", self._order_history),
            _endpoint("/v5/execution/list", self._executions),
        ]

    def _positions(self, state: AccountState, query: Mapping[str, str], key: ApiKey) -> dict[str, Any]:
        rules = _asked(query)
        if not rules.has_position:
            raise _invalid("Category")
        found = _positions_asked(state, query, rules)
        limit = limited(query, default=20, most=200)
        begin = int(query["cursor"]) if query.get("cursor", "").isdigit() else 0
        more = str(begin + limit) if begin + limit < len(found) else ""
        rows = [one.rest_row(state.mark(one)) for one in found[begin : begin + limit]]
        return {"list": rows, "nextPageCursor": more, "category": rules.category}

    def _open_orders(self, state: AccountState, query: Mapping[str, str], key: ApiKey) -> dict[str, Any]:
        rules = _asked(query)
        if rules.category == "linear" and not any(query.get(name) for name in ("symbol", "baseCoin", "settleCoin")):
            raise RequestRefused(PARAMETER_ERROR, _SYMBOL_MISSING)
        wants_closed = query.get("openOnly", "0") == "1"
        orders = [order for order in _orders(state, query, rules) if order.is_open != wants_closed]
        return _order_page(orders[:_CLOSED_KEPT], query, rules)

    def _order_history(self, state: AccountState, query: Mapping[str, str], key: ApiKey) -> dict[str, Any]:
        rules = _asked(query)
        start, end = window(query, self._clock.now_ms())
        orders = [
            order for order in _orders(state, query, rules) if not order.is_open and start <= order.created_ms <= end
        ]
        return _order_page(orders, query, rules)

    def _executions(self, state: AccountState, query: Mapping[str, str], key: ApiKey) -> dict[str, Any]:
        rules = _asked(query)
        start, end = window(query, self._clock.now_ms())
        wanted = {"symbol": "symbol", "orderId": "order_id", "orderLinkId": "order_link_id", "side": "side"}
        found = [
            one
            for one in reversed(state.executions)
            if one.order.rules is rules
            and start <= one.filled_ms <= end
            and query.get("execType") in (None, "", "Trade")
            and all(query.get(name) in (None, "", getattr(one.order, field)) for name, field in wanted.items())
        ]
        rows, cursor = page(
            found,
            query,
            limit=limited(query, default=50, most=100),
            number=_execution_number,
            write=lambda number: f"{number}:2,{number}:2",
        )
        return {"nextPageCursor": cursor, "category": rules.category, "list": [one.rest_row() for one in rows]}


def _endpoint(path: str, answer: Answer) -> Endpoint:
    return Endpoint(path=path, answer=answer, area="ContractTrade")


def _asked(query: Mapping[str, str]) -> CategoryRules:
    rules = RULES.get(query.get("category", ""))
    if rules is None:
        raise _invalid("Category")
    return rules


def _positions_asked(state: AccountState, query: Mapping[str, str], rules: CategoryRules) -> list[HeldPosition]:
    symbol, settle_coin = query.get("symbol"), query.get("settleCoin")
    if symbol:
        try:
            rules.check(symbol, state.prices)
        except SandboxError as error:
            raise RequestRefused(PARAMETER_ERROR, "params error: symbol invalid") from error
        return [state.positions.get(symbol, HeldPosition(symbol, rules=rules))]
    if rules.category == "linear" and not settle_coin:
        raise RequestRefused(PARAMETER_ERROR, _SYMBOL_MISSING)
    held = [
        one
        for one in state.positions.values()
        if one.rules is rules and one.size and settle_coin in (None, "", rules.settle_coin(one.symbol))
    ]
    return sorted(held, key=lambda one: one.symbol)


def _orders(state: AccountState, query: Mapping[str, str], rules: CategoryRules) -> list[Order]:
    wanted = {"symbol": "symbol", "orderId": "order_id", "orderLinkId": "order_link_id", "orderStatus": "status"}
    return [
        order
        for order in reversed(state.orders.values())
        if order.rules is rules
        and query.get("settleCoin") in (None, "", rules.settle_coin(order.symbol))
        and (not query.get("baseCoin") or order.symbol.startswith(query["baseCoin"]))
        and all(query.get(name) in (None, "", getattr(order, field)) for name, field in wanted.items())
    ]


def _order_page(orders: list[Order], query: Mapping[str, str], rules: CategoryRules) -> dict[str, Any]:
    rows, cursor = page(
        orders,
        query,
        limit=limited(query, default=20, most=50),
        number=lambda order: order.number,
        write=lambda number: f"page_token={number}:2&",
    )
    return {"list": [order.rest_row() for order in rows], "nextPageCursor": cursor, "category": rules.category}


def _execution_number(execution: Fill) -> int:
    return execution.number


def _invalid(name: str) -> RequestRefused:
    return RequestRefused(PARAMETER_ERROR, f"params error: {name} is invalid")
