"""The signed endpoints of account, positions, orders and executions."""

from collections.abc import Mapping
from typing import Any

from hedgelock_ingest.sandbox.exchange.account.account import SimulatedAccount
from hedgelock_ingest.sandbox.exchange.account.amounts import text
from hedgelock_ingest.sandbox.exchange.account.loan_terms import HOURLY_RATES
from hedgelock_ingest.sandbox.exchange.account.order import Fill, Order
from hedgelock_ingest.sandbox.exchange.account.position import HeldPosition
from hedgelock_ingest.sandbox.exchange.account.wallet import CoinHolding, coin_row
from hedgelock_ingest.sandbox.exchange.keys import ApiKey
from hedgelock_ingest.sandbox.exchange.rest.access_control import AccessControl, Endpoint
from hedgelock_ingest.sandbox.exchange.rest.envelope import PARAMETER_ERROR, RequestRefused
from hedgelock_ingest.sandbox.exchange.rest.pages import limited, page, required, window

_CATEGORIES = ("spot", "linear", "inverse", "option")
_CLOSED_KEPT = 500
_SYMBOL_MISSING = "Missing some parameters that must be filled in, symbol or settleCoin"


class AccountEndpoints:
    """`/v5/account/…`, `/v5/position/list`, `/v5/order/…`, `/v5/execution/list`, key and coin information."""

    def __init__(self, account: SimulatedAccount, access: AccessControl) -> None:
        self._account = account
        self._access = access

    def endpoints(self) -> list[Endpoint]:
        """Return the endpoints, with Bybit's limits."""
        return [
            Endpoint(path="/v5/account/wallet-balance", answer=self._wallet_balance),
            Endpoint(path="/v5/account/info", answer=self._account_info, is_bare=True),
            Endpoint(path="/v5/account/collateral-info", answer=self._collateral_info),
            Endpoint(path="/v5/position/list", answer=self._positions, area="ContractTrade"),
            Endpoint(path="/v5/order/realtime", answer=self._open_orders, area="ContractTrade"),
            Endpoint(path="/v5/order/history", answer=self._order_history, area="ContractTrade"),
            Endpoint(path="/v5/execution/list", answer=self._executions, area="ContractTrade"),
            Endpoint(path="/v5/user/query-api", answer=self._key, per_s=10, ret_msg=""),
            Endpoint(path="/v5/asset/coin/query-info", answer=self._coin_info, per_s=5, ret_msg=""),
        ]

    def _wallet_balance(self, query: Mapping[str, str], key: ApiKey) -> dict[str, Any]:
        if required(query, "accountType") != "UNIFIED":
            raise RequestRefused(PARAMETER_ERROR, "accountType only support UNIFIED.")
        account = self._account
        row = account.wallet()
        if query.get("coin"):
            prices, margins = account.prices, account.margins()
            names = query["coin"].split(",")
            row["coin"] = [coin_row(name, account.coins.get(name, CoinHolding()), margins, prices) for name in names]
        else:
            row["coin"] = [coin for coin in row["coin"] if coin["equity"] != "0"]
        return {"list": [row]}

    def _account_info(self, query: Mapping[str, str], key: ApiKey) -> dict[str, Any]:
        return {
            "marginMode": "REGULAR_MARGIN",
            "updatedTime": "1697078946000",
            "unifiedMarginStatus": 5,
            "dcpStatus": "OFF",
            "timeWindow": 10,
            "smpGroup": 0,
            "isMasterTrader": False,
            "spotHedgingStatus": "OFF",
        }

    def _collateral_info(self, query: Mapping[str, str], key: ApiKey) -> dict[str, Any]:
        rows = [
            {
                "availableToBorrow": "0",
                "freeBorrowingLimit": "",
                "freeBorrowAmount": "0",
                "maxBorrowingAmount": "0",
                "hourlyBorrowRate": text(rate),
                "borrowUsageRate": "0",
                "collateralSwitch": True,
                "borrowAmount": "0",
                "otherBorrowAmount": "0",
                "borrowable": True,
                "currency": coin,
                "marginCollateral": True,
                "collateralRatio": "1",
            }
            for coin, rate in HOURLY_RATES.items()
            if query.get("currency") in (None, "", coin)
        ]
        return {"list": rows}

    def _positions(self, query: Mapping[str, str], key: ApiKey) -> dict[str, Any]:
        category = self._category(query)
        symbol, settle_coin = query.get("symbol"), query.get("settleCoin")
        if category != "linear":
            return {"list": [], "nextPageCursor": "", "category": category}
        if symbol:
            if not self._account.prices.trades(symbol):
                raise RequestRefused(PARAMETER_ERROR, "params error: symbol invalid")
            found = [self._account.positions.get(symbol, HeldPosition(symbol))]
        elif settle_coin:
            held = [one for one in self._account.positions.values() if one.size and settle_coin == "USDT"]
            found = sorted(held, key=lambda one: one.symbol)
        else:
            raise RequestRefused(PARAMETER_ERROR, _SYMBOL_MISSING)
        limit = limited(query, default=20, most=200)
        begin = int(query["cursor"]) if query.get("cursor", "").isdigit() else 0
        more = str(begin + limit) if begin + limit < len(found) else ""
        rows = [one.rest_row(self._account.prices.mark(one.symbol)) for one in found[begin : begin + limit]]
        return {"list": rows, "nextPageCursor": more, "category": category}

    def _open_orders(self, query: Mapping[str, str], key: ApiKey) -> dict[str, Any]:
        category = self._category(query)
        if category == "linear" and not any(query.get(name) for name in ("symbol", "baseCoin", "settleCoin")):
            raise RequestRefused(PARAMETER_ERROR, _SYMBOL_MISSING)
        wants_closed = query.get("openOnly", "0") == "1"
        orders = [order for order in self._orders(query, category) if order.is_open != wants_closed]
        return self._order_page(orders[:_CLOSED_KEPT], query, category)

    def _order_history(self, query: Mapping[str, str], key: ApiKey) -> dict[str, Any]:
        category = self._category(query)
        start, end = window(query, self._account.clock.now_ms())
        orders = [
            order for order in self._orders(query, category) if not order.is_open and start <= order.created_ms <= end
        ]
        return self._order_page(orders, query, category)

    def _executions(self, query: Mapping[str, str], key: ApiKey) -> dict[str, Any]:
        category = self._category(query)
        start, end = window(query, self._account.clock.now_ms())
        wanted = {"symbol": "symbol", "orderId": "order_id", "orderLinkId": "order_link_id", "side": "side"}
        found = [
            one
            for one in reversed(self._account.executions)
            if category == "linear"
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
        return {"nextPageCursor": cursor, "category": category, "list": [one.rest_row() for one in rows]}

    def _key(self, query: Mapping[str, str], key: ApiKey) -> dict[str, Any]:
        return self._access.describe(key)

    def _coin_info(self, query: Mapping[str, str], key: ApiKey) -> dict[str, Any]:
        rows = [
            {"name": coin, "coin": coin, "remainAmount": "150", "chains": []}
            for coin in self._account.coins
            if query.get("coin") in (None, "", coin)
        ]
        return {"rows": rows}

    def _orders(self, query: Mapping[str, str], category: str) -> list[Order]:
        wanted = {"symbol": "symbol", "orderId": "order_id", "orderLinkId": "order_link_id", "orderStatus": "status"}
        return [
            order
            for order in reversed(self._account.orders.values())
            if category == "linear"
            and query.get("settleCoin") in (None, "", "USDT")
            and (not query.get("baseCoin") or order.symbol.startswith(query["baseCoin"]))
            and all(query.get(name) in (None, "", getattr(order, field)) for name, field in wanted.items())
        ]

    def _order_page(self, orders: list[Order], query: Mapping[str, str], category: str) -> dict[str, Any]:
        rows, cursor = page(
            orders,
            query,
            limit=limited(query, default=20, most=50),
            number=lambda order: order.number,
            write=lambda number: f"page_token={number}:2&",
        )
        return {"list": [order.rest_row() for order in rows], "nextPageCursor": cursor, "category": category}

    def _category(self, query: Mapping[str, str]) -> str:
        category = query.get("category", "")
        if category not in _CATEGORIES:
            raise RequestRefused(PARAMETER_ERROR, "params error: Category is invalid")
        return category


def _execution_number(execution: Fill) -> int:
    return execution.number
