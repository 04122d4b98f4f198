"""The instruments: tick and lot sizes, and how their numbers are written."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Instrument:
    """
    One symbol of one category.

    Prices are counted in ticks and sizes in lots, both integers; only text leaves this module. Linear numbers
    keep their trailing zeros (`61874.00`), spot numbers lose them (`43730`), as in recorded frames.
    """

    category: str
    symbol: str
    base_coin: str
    quote_coin: str
    price_digits: int
    tick_units: int
    size_digits: int
    start_ticks: int
    level_gap: int
    usual_lots: int
    _value_units: int
    _price_text: dict[int, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def tick_size(self) -> float:
        """The price of one tick, for arithmetic that need not be exact."""
        return float(self.tick_units / 10**self.price_digits)

    def price(self, ticks: int) -> str:
        """Write a price."""
        text = self._price_text.get(ticks)
        if text is None:
            if len(self._price_text) > 200_000:
                self._price_text.clear()
            text = self._written(ticks * self.tick_units, self.price_digits)
            self._price_text[ticks] = text
        return text

    def size(self, lots: int) -> str:
        """Write a size; nothing is `0` in both categories."""
        if lots == 0:
            return "0"
        return self._written(lots, self.size_digits)

    def value(self, ticks: int, lots: int) -> int:
        """Return what `lots` cost at `ticks`, in units of 10^-8 of the quote coin."""
        return ticks * lots * self._value_units

    def _written(self, units: int, digits: int) -> str:
        scale = 10**digits
        text = f"{units // scale}.{units % scale:0{digits}d}" if digits else str(units)
        if self.category == "spot" and digits:
            return text.rstrip("0").rstrip(".")
        return text


def decimal_text(units: int, digits: int, *, strip: bool = False) -> str:
    """Write `units` of 10^-`digits`, which may be negative; `strip` takes trailing zeros away."""
    scale = 10**digits
    sign = "-" if units < 0 else ""
    units = abs(units)
    text = f"{sign}{units // scale}.{units % scale:0{digits}d}"
    return text.rstrip("0").rstrip(".") if strip else text


# symbol: start price, then (price digits, tick in units of the last digit, size digits) of linear and spot
_KNOWN: dict[str, tuple[float, tuple[int, int, int], tuple[int, int, int]]] = {
    "BTCUSDT": (64_000.0, (2, 10, 3), (2, 1, 6)),
    "ETHUSDT": (3_200.0, (2, 1, 2), (2, 1, 5)),
    "SOLUSDT": (150.0, (3, 10, 1), (2, 1, 4)),
    "XRPUSDT": (2.2, (4, 1, 1), (4, 1, 2)),
}
_OTHER = (100.0, (2, 1, 1), (2, 1, 3))
_LEVEL_GAP = 5e-6  # the usual distance of two levels, as a share of the price


def instrument_for(category: str, symbol: str) -> Instrument:
    """Return the instrument of a symbol; symbols that are not known get a price near 100."""
    start, linear, spot = _KNOWN.get(symbol, _OTHER)
    price_digits, tick_units, size_digits = linear if category == "linear" else spot
    tick = tick_units / 10**price_digits
    quote = next((coin for coin in ("USDT", "USDC", "EUR") if symbol.endswith(coin)), "USDT")
    return Instrument(
        category=category,
        symbol=symbol,
        base_coin=symbol.removesuffix(quote),
        quote_coin=quote,
        price_digits=price_digits,
        tick_units=tick_units,
        size_digits=size_digits,
        start_ticks=round(start / tick),
        level_gap=max(1, round(start * _LEVEL_GAP / tick)),
        usual_lots=max(1, round(20_000 / start * 10**size_digits)),
        _value_units=tick_units * int(10 ** (8 - price_digits - size_digits)),
    )
