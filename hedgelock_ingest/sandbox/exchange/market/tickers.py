"""The fields of tickers, in Bybit's order; all numbers are strings."""

from hedgelock_ingest.sandbox.exchange.market.instruments import decimal_text
from hedgelock_ingest.sandbox.exchange.market.market import Market

_FUNDING_MS = 8 * 3_600_000


def linear_fields(market: Market, now_ms: int) -> dict[str, str]:
    """
    Return the ticker of a linear perpetual.

    Source: Bybit V5, WebSocket public ticker; the `single…` fields are since 2026-06-11.
    """
    instrument, book = market.instrument, market.book
    price, size = instrument.price, instrument.size
    interest_value = instrument.value(market.mark_ticks, market.open_interest) // 10**6
    return {
        "symbol": instrument.symbol,
        "tickDirection": market.tick_direction,
        "price24hPcnt": _change(market, 6),
        "lastPrice": price(market.last_ticks),
        "prevPrice24h": price(market.yesterday_ticks),
        "highPrice24h": price(market.high_ticks),
        "lowPrice24h": price(market.low_ticks),
        "prevPrice1h": price(market.hour_ago_ticks),
        "markPrice": price(market.mark_ticks),
        "indexPrice": price(market.index_ticks),
        "openInterest": size(market.open_interest),
        "openInterestValue": decimal_text(interest_value, 2),
        "singleOpenInterest": size(market.open_interest // 2),
        "singleOpenInterestValue": decimal_text(interest_value // 2, 2),
        "turnover24h": decimal_text(market.turnover // 10**4, 4),
        "volume24h": decimal_text(market.volume * 10 ** (4 - instrument.size_digits), 4),
        "fundingIntervalHour": "8",
        "fundingCap": "0.005",
        "nextFundingTime": str((now_ms // _FUNDING_MS + 1) * _FUNDING_MS),
        "fundingRate": "0.0001",
        "bid1Price": price(book.best_bid),
        "bid1Size": size(book.bids.sizes[book.bids.keys[0]]),
        "ask1Price": price(book.best_ask),
        "ask1Size": size(book.asks.sizes[book.asks.keys[0]]),
        "preOpenPrice": "",
        "preQty": "",
        "curPreListingPhase": "",
    }


def spot_fields(market: Market, now_ms: int) -> dict[str, str]:
    """Return the ticker of a spot symbol, which has no best bid and ask."""
    instrument = market.instrument
    price = instrument.price
    return {
        "symbol": instrument.symbol,
        "lastPrice": price(market.last_ticks),
        "highPrice24h": price(market.high_ticks),
        "lowPrice24h": price(market.low_ticks),
        "prevPrice24h": price(market.yesterday_ticks),
        "volume24h": instrument.size(market.volume),
        "turnover24h": decimal_text(market.turnover, 8, strip=True),
        "price24hPcnt": _change(market, 4),
        "usdIndexPrice": decimal_text(market.index_ticks * instrument.tick_units, instrument.price_digits),
    }


def _change(market: Market, digits: int) -> str:
    change = (market.last_ticks - market.yesterday_ticks) * 10**digits
    units = abs(change) // market.yesterday_ticks
    return decimal_text(units if change >= 0 else -units, digits, strip=market.instrument.category == "spot")
