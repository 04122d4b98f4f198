"""Prices of the account's holdings: the price paths of the markets, as exact decimals."""

from decimal import Decimal

from hedgelock_ingest.errors import SandboxError
from hedgelock_ingest.sandbox.exchange.account.amounts import ONE
from hedgelock_ingest.sandbox.exchange.market.channels import Channels
from hedgelock_ingest.sandbox.exchange.market.instruments import Instrument, instrument_for

_STABLE = ("USDT", "USDC", "USD")


class Prices:
    """
    Prices in ticks of the linear instrument; one USDT and one USDC are one USD.

    They follow the path of the symbol, so they do not change while no line reads the market.
    """

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    def instrument(self, symbol: str) -> Instrument:
        """Return a linear instrument that is traded here."""
        market = self._channels.markets.get(("linear", symbol))
        if market is None:
            raise SandboxError(f"no linear market trades {symbol}")
        return market.instrument

    def trades(self, symbol: str) -> bool:
        """Return whether a linear market trades a symbol."""
        return ("linear", symbol) in self._channels.markets

    def mark(self, symbol: str) -> Decimal:
        """Return the mark price of a symbol."""
        instrument = instrument_for("linear", symbol)
        path = self._channels.paths.get(symbol)
        ticks = round(path.price / instrument.tick_size) if path else instrument.start_ticks
        return Decimal(max(ticks, 1) * instrument.tick_units).scaleb(-instrument.price_digits)

    def usd(self, coin: str) -> Decimal:
        """Return what one coin is worth."""
        return ONE if coin in _STABLE else self.mark(f"{coin}USDT")

    def fall(self, factor: float) -> None:
        """Multiply the prices of all symbols."""
        for path in self._channels.paths.values():
            path.jump_to(path.price * factor)

    def next_seq(self, symbol: str) -> int:
        """Return the cross sequence of a match, which the public streams share."""
        market = self._channels.markets["linear", symbol]
        market.seq += 1 + int(market.random.random() * 40)
        return market.seq
