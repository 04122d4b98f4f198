"""The rules of each category: what a size is worth, what a fill settles, and which margin it binds."""

from decimal import Decimal
from typing import ClassVar

from hedgelock_ingest.errors import SandboxError
from hedgelock_ingest.sandbox.exchange.account.amounts import ONE, ZERO, rounded
from hedgelock_ingest.sandbox.exchange.market.prices import Prices

LEVERAGE = Decimal(10)
TAKER_FEE = Decimal("0.00055")
MAKER_FEE = Decimal("0.0002")
_MAINTENANCE = Decimal("0.005")
_OPTION_TICK = Decimal(5)
_OPTION_TIME_VALUE = Decimal("0.01")
_SHORT_OPTION_INITIAL = Decimal("0.1")
_SHORT_OPTION_MAINTENANCE = Decimal("0.05")


class CategoryRules:
    """
    Rules of linear contracts; the other categories override what differs.

    Sizes are negative when short. All amounts are in the coin that the symbol settles in.
    """

    category: ClassVar[str] = "linear"
    has_position: ClassVar[bool] = True

    def check(self, symbol: str, prices: Prices) -> None:
        """Raise SandboxError if the symbol is not traded."""
        prices.instrument(self.underlying(symbol))

    def underlying(self, symbol: str) -> str:
        """Return the linear symbol whose market gives price and sequence."""
        return symbol

    def base_coin(self, symbol: str) -> str:
        """Return the coin that is traded."""
        return self.underlying(symbol).removesuffix("PERP").removesuffix("USDC").removesuffix("USDT")

    def settle_coin(self, symbol: str) -> str:
        """Return the coin of profits, fees and margin."""
        return "USDC" if symbol.endswith(("USDC", "PERP")) else "USDT"

    def size_digits(self, symbol: str, prices: Prices) -> int:
        """Return how many digits a size has after the point."""
        return prices.instrument(symbol).size_digits

    def tick(self, symbol: str, prices: Prices) -> Decimal:
        """Return the step of prices."""
        instrument = prices.instrument(self.underlying(symbol))
        return Decimal(instrument.tick_units).scaleb(-instrument.price_digits)

    def mark(self, symbol: str, prices: Prices) -> Decimal:
        """Return the mark price."""
        return prices.mark(self.underlying(symbol))

    def next_seq(self, symbol: str, prices: Prices) -> int:
        """Return the cross sequence of a match."""
        return prices.next_seq(self.underlying(symbol))

    def value(self, size: Decimal, price: Decimal) -> Decimal:
        """Return what a size is worth; never negative."""
        return rounded(abs(size) * price)

    def average(self, size: Decimal, entry: Decimal, added: Decimal, price: Decimal) -> Decimal:
        """Return the entry price after a fill that increases the position."""
        return rounded((abs(size) * entry + abs(added) * price) / abs(size + added))

    def profit(self, size: Decimal, entry: Decimal, price: Decimal) -> Decimal:
        """Return the profit of a size that was opened at one price and is closed at another."""
        return rounded(size * (price - entry))

    def settled(self, quantity: Decimal, price: Decimal, profit: Decimal) -> Decimal:
        """Return by how much a fill changes the balance, before fees."""
        return profit

    def initial_margin(self, symbol: str, size: Decimal, entry: Decimal) -> Decimal:
        """Return the initial margin of a position."""
        return margin_of(self.value(size, entry), is_long=size > 0)

    def maintenance_margin(self, symbol: str, size: Decimal, entry: Decimal) -> Decimal:
        """Return the margin below which a position is liquidated."""
        value = self.value(size, entry)
        return rounded(value * _MAINTENANCE + _closing_fee(value, is_long=size > 0))

    def order_margin(self, symbol: str, quantity: Decimal, price: Decimal) -> Decimal:
        """Return the margin that an open order binds."""
        return order_margin(self.value(quantity, price), is_buy=quantity > 0)

    def held_value(self, size: Decimal, mark: Decimal) -> Decimal:
        """Return what a position adds to equity beside its profit: the value of an option, negative when short."""
        return ZERO

    def break_even(self, size: Decimal, entry: Decimal, realised: Decimal) -> Decimal | None:
        """Return the price at which a close covers all fees; None where Bybit leaves it empty."""
        fee = ONE + TAKER_FEE if size > 0 else ONE - TAKER_FEE
        return rounded(entry * fee - realised / size)


class InverseRules(CategoryRules):
    """Inverse perpetuals such as BTCUSD: sizes are whole USD, everything else is in the base coin."""

    category = "inverse"

    def underlying(self, symbol: str) -> str:
        return f"{symbol.removesuffix('USD')}USDT"

    def settle_coin(self, symbol: str) -> str:
        return symbol.removesuffix("USD")

    def size_digits(self, symbol: str, prices: Prices) -> int:
        return 0

    def value(self, size: Decimal, price: Decimal) -> Decimal:
        return rounded(abs(size) / price) if price else ZERO

    def average(self, size: Decimal, entry: Decimal, added: Decimal, price: Decimal) -> Decimal:
        return rounded(abs(size + added) / (abs(size) / entry + abs(added) / price))

    def profit(self, size: Decimal, entry: Decimal, price: Decimal) -> Decimal:
        return rounded(size * (ONE / entry - ONE / price)) if size else ZERO

    def break_even(self, size: Decimal, entry: Decimal, realised: Decimal) -> Decimal | None:
        return rounded(entry * (ONE + TAKER_FEE if size > 0 else ONE - TAKER_FEE))


class OptionRules(CategoryRules):
    """
    Options such as BTC-25DEC26-70000-C (settled in USDC) or BTC-25DEC26-70000-C-USDT.

    The mark price is what it is worth today and one percent of the index. The premium moves at the fill; the value
    of the option counts as equity. Only a short option binds margin. Source: Bybit Help Center, Options margin.
    """

    category = "option"

    def check(self, symbol: str, prices: Prices) -> None:
        parts = symbol.split("-")
        if len(parts) not in (4, 5) or not parts[2].isdigit() or parts[3] not in ("C", "P"):
            raise SandboxError(f"no option is called {symbol}")
        prices.instrument(self.underlying(symbol))

    def underlying(self, symbol: str) -> str:
        return f"{symbol.partition('-')[0]}USDT"

    def settle_coin(self, symbol: str) -> str:
        return "USDT" if symbol.endswith("-USDT") else "USDC"

    def size_digits(self, symbol: str, prices: Prices) -> int:
        return 2

    def tick(self, symbol: str, prices: Prices) -> Decimal:
        return _OPTION_TICK

    def mark(self, symbol: str, prices: Prices) -> Decimal:
        index = prices.mark(self.underlying(symbol))
        gain = index - _strike(symbol) if symbol.split("-")[3] == "C" else _strike(symbol) - index
        worth = max(gain, ZERO) + index * _OPTION_TIME_VALUE
        return max((worth / _OPTION_TICK).quantize(ONE) * _OPTION_TICK, _OPTION_TICK)

    def settled(self, quantity: Decimal, price: Decimal, profit: Decimal) -> Decimal:
        return rounded(-quantity * price)

    def initial_margin(self, symbol: str, size: Decimal, entry: Decimal) -> Decimal:
        return self._short_margin(symbol, size, entry, _SHORT_OPTION_INITIAL)

    def maintenance_margin(self, symbol: str, size: Decimal, entry: Decimal) -> Decimal:
        return self._short_margin(symbol, size, entry, _SHORT_OPTION_MAINTENANCE)

    def order_margin(self, symbol: str, quantity: Decimal, price: Decimal) -> Decimal:
        premium = self.value(quantity, price)
        return premium if quantity > 0 else self.initial_margin(symbol, quantity, price)

    def held_value(self, size: Decimal, mark: Decimal) -> Decimal:
        return rounded(size * mark)

    def break_even(self, size: Decimal, entry: Decimal, realised: Decimal) -> Decimal | None:
        return None

    def _short_margin(self, symbol: str, size: Decimal, entry: Decimal, share: Decimal) -> Decimal:
        return rounded(abs(size) * (_strike(symbol) * share + entry)) if size < 0 else ZERO


class SpotRules(CategoryRules):
    """Spot pairs: a fill exchanges two coins and makes no position; an open order locks the coin it pays with."""

    category = "spot"
    has_position = False

    def check(self, symbol: str, prices: Prices) -> None:
        prices.instrument(symbol, "spot")

    def size_digits(self, symbol: str, prices: Prices) -> int:
        return prices.instrument(symbol, "spot").size_digits

    def next_seq(self, symbol: str, prices: Prices) -> int:
        return prices.next_seq(symbol, "spot")

    def tick(self, symbol: str, prices: Prices) -> Decimal:
        instrument = prices.instrument(symbol, "spot")
        return Decimal(instrument.tick_units).scaleb(-instrument.price_digits)

    def settled(self, quantity: Decimal, price: Decimal, profit: Decimal) -> Decimal:
        return rounded(-quantity * price)

    def order_margin(self, symbol: str, quantity: Decimal, price: Decimal) -> Decimal:
        return ZERO

    def locked(self, symbol: str, quantity: Decimal, price: Decimal) -> tuple[str, Decimal]:
        """Return the coin and the amount that an open order locks."""
        if quantity > 0:
            return self.settle_coin(symbol), self.value(quantity, price)
        return self.base_coin(symbol), -quantity


LINEAR, INVERSE, OPTION, SPOT = CategoryRules(), InverseRules(), OptionRules(), SpotRules()
RULES = {rules.category: rules for rules in (LINEAR, INVERSE, OPTION, SPOT)}


def rules_of(symbol: str, category: str | None = None) -> CategoryRules:
    """Return the rules of a category; without one, those that the shape of the symbol stands for, never spot."""
    if category is None:
        category = "option" if symbol.count("-") > 2 else "inverse" if symbol.endswith("USD") else "linear"
    if category not in RULES:
        raise SandboxError(f"no category is called {category!r}")
    return RULES[category]


def margin_of(value: Decimal, *, is_long: bool) -> Decimal:
    """Return the initial margin of a position of this value."""
    return rounded(value / LEVERAGE + _closing_fee(value, is_long=is_long))


def order_margin(value: Decimal, *, is_buy: bool) -> Decimal:
    """Return the initial margin of an open order of this value, the fee of opening included."""
    return rounded(value / LEVERAGE + value * TAKER_FEE + _closing_fee(value, is_long=is_buy))


def _closing_fee(value: Decimal, *, is_long: bool) -> Decimal:
    at_bankruptcy = ONE - ONE / LEVERAGE if is_long else ONE + ONE / LEVERAGE
    return value * at_bankruptcy * TAKER_FEE


def _strike(symbol: str) -> Decimal:
    return Decimal(symbol.split("-")[2])
