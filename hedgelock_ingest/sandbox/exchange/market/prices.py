"""Prices of the account's holdings: the price paths of the markets, as exact decimals."""

from collections.abc import Mapping
from decimal import Decimal

from hedgelock_ingest.errors import SandboxError
from hedgelock_ingest.sandbox.exchange.account.amounts import ONE
from hedgelock_ingest.sandbox.exchange.market.channels import Channels
from hedgelock_ingest.sandbox.exchange.market.instruments import Instrument, instrument_for

_STABLE = ("USDT", "USDC", "USD")


class Prices:
    """
    Prices in ticks of the linear instrument; one USDT and one USDC are one USD.

    They follow the path of the symbol, so they do not change while no line reads the market. With `past` they are
    those prices instead, and do not change at all.
    """

    def __init__(self, channels: Channels, past: Mapping[str, float] | None = None) -> None:
        self._channels = channels
        self._past = past

    def sample(self) -> dict[str, float]:
        """Return the current price of each symbol."""
        return {symbol: path.price for symbol, path in self._channels.paths.items()}

    def as_of(self, past: Mapping[str, float]) -> "Prices":
        """Return the prices of an earlier sample."""
        return Prices(self._channels, past)

    def instrument(self, symbol: str, category: str = "linear") -> Instrument:
        """Return an instrument that is traded here."""
        market = self._channels.markets.get((category, symbol))
        if market is None:
            raise SandboxError(f"no {category} market trades {symbol}")
        return market.instrument

    def trades(self, symbol: str) -> bool:
        """Return whether a linear market trades a symbol."""
        return ("linear", symbol) in self._channels.markets

    def mark(self, symbol: str) -> Decimal:
        """Return the mark price of a symbol."""
        instrument = instrument_for("linear", symbol)
        price = self._price(symbol)
        ticks = instrument.start_ticks if price is None else round(price / instrument.tick_size)
        return Decimal(max(ticks, 1) * instrument.tick_units).scaleb(-instrument.price_digits)

    def usd(self, coin: str) -> Decimal:
        """Return what one coin is worth."""
        return ONE if coin in _STABLE else self.mark(f"{coin}USDT")

    def fall(self, factor: float) -> None:
        """Multiply the prices of all symbols."""
        for path in self._channels.paths.values():
            path.jump_to(path.price * factor)

    def next_seq(self, symbol: str, category: str = "linear") -> int:
        """Return the cross sequence of a match, which the public streams share."""
        market = self._channels.markets[category, symbol]
        market.seq += 1 + int(market.random.random() * 40)
        return market.seq

    def _price(self, symbol: str) -> float | None:
        if self._past is not None:
            return self._past.get(symbol)
        path = self._channels.paths.get(symbol)
        return path.price if path else None
