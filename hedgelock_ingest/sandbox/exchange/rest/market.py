"""The market endpoints of REST, in Bybit's envelope."""

from typing import Any

from aiohttp import web

from hedgelock_ingest.sandbox.exchange.clock import ExchangeClock
from hedgelock_ingest.sandbox.exchange.market.book_streams import BookStream
from hedgelock_ingest.sandbox.exchange.market.channel_stream import trade_id
from hedgelock_ingest.sandbox.exchange.market.channels import Channels
from hedgelock_ingest.sandbox.exchange.market.instruments import Instrument, decimal_text
from hedgelock_ingest.sandbox.exchange.market.market import Market, MarketTrade
from hedgelock_ingest.sandbox.exchange.market.tickers import linear_fields, spot_fields
from hedgelock_ingest.sandbox.exchange.rest.envelope import PARAMETER_ERROR, RequestRefused, enveloped

_DATED = ("basis", "basisRate", "basisRateYear", "deliveryFeeRate", "predictedDeliveryPrice")


class MarketEndpoints:
    """`/v5/market/…`, public and without signature."""

    def __init__(self, channels: Channels, clock: ExchangeClock) -> None:
        self._channels = channels
        self._clock = clock

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of these endpoints."""
        return [
            web.get("/v5/market/time", self._time),
            web.get("/v5/market/tickers", self._tickers),
            web.get("/v5/market/orderbook", self._orderbook),
            web.get("/v5/market/recent-trade", self._recent_trade),
            web.get("/v5/market/instruments-info", self._instruments_info),
        ]

    async def _time(self, request: web.Request) -> web.Response:
        now_ns = self._clock.now_ns()
        return self._enveloped({"timeSecond": str(now_ns // 10**9), "timeNano": str(now_ns)})

    async def _tickers(self, request: web.Request) -> web.Response:
        category, markets = self._asked(request)
        now_ms = self._clock.now_ms()
        row = _linear_row if category == "linear" else _spot_row
        return self._enveloped({"category": category, "list": [row(market, now_ms) for market in markets]})

    async def _orderbook(self, request: web.Request) -> web.Response:
        category, markets = self._asked(request, needs_symbol=True)
        limit = _limit(request, default=1 if category == "spot" else 25, most=1000)
        market = markets[0]
        symbol, price, size = market.instrument.symbol, market.instrument.price, market.instrument.size
        full = self._channels.live(category, f"orderbook.1000.{symbol}")
        book, now_ms = market.book, self._clock.now_ms()
        result: dict[str, Any] = {
            "s": symbol,
            "a": [[price(key), size(book.asks.sizes[key])] for key in book.asks.keys[:limit]],
            "b": [[price(-key), size(book.bids.sizes[key])] for key in book.bids.keys[:limit]],
            "ts": now_ms,
            "u": market.changed_count,
            "seq": market.seq,
            "cts": now_ms - 2,
        }
        if full is not None and isinstance(full.stream, BookStream):
            # Source: Bybit V5, Get Orderbook: "u" is that of the 1000-level stream.
            bids, asks = full.stream.view.levels()
            result["a"] = [[price(ticks), size(lots)] for ticks, lots in asks[:limit]]
            result["b"] = [[price(ticks), size(lots)] for ticks, lots in bids[:limit]]
            result |= {"u": full.stream.update_id, "seq": full.stream.seq, "cts": full.stream.changed_ms}
        return self._enveloped(result)

    async def _recent_trade(self, request: web.Request) -> web.Response:
        category, markets = self._asked(request, needs_symbol=True)
        most = 60 if category == "spot" else 1000
        limit = _limit(request, default=60 if category == "spot" else 500, most=most)
        tape = markets[0].tape
        newest = [tape[-index] for index in range(1, min(limit, len(tape)) + 1)]
        rows = [_trade_row(markets[0].instrument, trade) for trade in newest]
        return self._enveloped({"category": category, "list": rows})

    async def _instruments_info(self, request: web.Request) -> web.Response:
        if request.query.get("category") in ("inverse", "option"):
            # Bybit's other categories are valid but empty here.
            return self._enveloped({"category": request.query.get("category"), "list": [], "nextPageCursor": ""})
        category, markets = self._asked(request, is_traded=False)
        status = request.query.get("status", "Trading")
        rows = [
            _instrument_row(market.instrument, status)
            for market in markets
            if self._channels.status(category, market.instrument.symbol) == status
        ]
        return self._enveloped({"category": category, "list": rows, "nextPageCursor": ""})

    def _enveloped(self, result: dict[str, Any]) -> web.Response:
        return enveloped(result, self._clock.now_ms())

    def _asked(
        self, request: web.Request, *, needs_symbol: bool = False, is_traded: bool = True
    ) -> tuple[str, list[Market]]:
        category = request.query.get("category", "")
        if category not in ("spot", "linear"):
            raise RequestRefused(PARAMETER_ERROR, "params error: Category is invalid")
        symbol = request.query.get("symbol")
        if symbol is None and not needs_symbol:
            return category, [one for key, one in self._channels.markets.items() if key[0] == category]
        market = self._channels.markets.get((category, symbol or ""))
        if market is None or (is_traded and self._channels.status(category, symbol or "") == "Closed"):
            raise RequestRefused(PARAMETER_ERROR, "Not supported symbols")
        return category, [market]


def _limit(request: web.Request, *, default: int, most: int) -> int:
    text = request.query.get("limit", str(default))
    if not text.isdigit() or int(text) < 1:
        raise RequestRefused(PARAMETER_ERROR, "params error: Limit is invalid")
    return min(int(text), most)


def _linear_row(market: Market, now_ms: int) -> dict[str, str]:
    fields = linear_fields(market, now_ms)
    fields.pop("tickDirection")
    return {**fields, "deliveryTime": "0", **dict.fromkeys(_DATED, "")}


def _spot_row(market: Market, now_ms: int) -> dict[str, str]:
    fields = spot_fields(market, now_ms)
    book, price, size = market.book, market.instrument.price, market.instrument.size
    return {
        **fields,
        "bid1Price": price(book.best_bid),
        "bid1Size": size(book.bids.sizes[book.bids.keys[0]]),
        "ask1Price": price(book.best_ask),
        "ask1Size": size(book.asks.sizes[book.asks.keys[0]]),
    }


def _trade_row(instrument: Instrument, trade: MarketTrade) -> dict[str, Any]:
    return {
        "execId": trade_id(instrument.category, trade.number),
        "symbol": instrument.symbol,
        "price": instrument.price(trade.ticks),
        "size": instrument.size(trade.lots),
        "side": "Buy" if trade.is_buy else "Sell",
        "time": str(trade.matched_ms),
        "isBlockTrade": False,
        "isRPITrade": trade.is_rpi,
        "seq": str(trade.seq),
    }


def _instrument_row(instrument: Instrument, status: str) -> dict[str, Any]:
    tick = decimal_text(instrument.tick_units, instrument.price_digits)
    lot = decimal_text(1, instrument.size_digits)
    row: dict[str, Any] = {
        "symbol": instrument.symbol,
        "baseCoin": instrument.base_coin,
        "quoteCoin": instrument.quote_coin,
        "status": status,
    }
    if instrument.category == "spot":
        return {
            **row,
            "innovation": "0",
            "marginTrading": "utaOnly",
            "stTag": "0",
            "lotSizeFilter": {
                "basePrecision": lot,
                "quotePrecision": "0.0000001",
                "minOrderQty": lot,
                "maxOrderQty": "230",
                "minOrderAmt": "5",
                "maxOrderAmt": "7000000",
            },
            "priceFilter": {"tickSize": tick},
            "riskParameters": {"priceLimitRatioX": "0.01", "priceLimitRatioY": "0.02"},
        }
    return {
        **row,
        "contractType": "LinearPerpetual",
        "launchTime": "1584230400000",
        "deliveryTime": "0",
        "deliveryFeeRate": "",
        "priceScale": str(instrument.price_digits),
        "leverageFilter": {"minLeverage": "1", "maxLeverage": "100.00", "leverageStep": "0.01"},
        "priceFilter": {"minPrice": tick, "maxPrice": "1999999.80", "tickSize": tick},
        "lotSizeFilter": {
            "maxOrderQty": "1190.000",
            "minOrderQty": lot,
            "qtyStep": lot,
            "postOnlyMaxOrderQty": "1190.000",
            "maxMktOrderQty": "119.000",
            "minNotionalValue": "5",
        },
        "unifiedMarginTrade": True,
        "fundingInterval": 480,
        "settleCoin": instrument.quote_coin,
        "copyTrading": "both",
        "upperFundingRate": "0.005",
        "lowerFundingRate": "-0.005",
        "isPreListing": False,
        "preListingInfo": None,
    }
