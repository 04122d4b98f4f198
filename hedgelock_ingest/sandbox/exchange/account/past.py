"""Earlier states of the account, for the answers of a replica that lags behind the stream."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from hedgelock_ingest.sandbox.exchange.account.state import AccountState
from hedgelock_ingest.sandbox.exchange.clock import ExchangeClock

KEPT_S = 60.0


@dataclass(frozen=True, slots=True)
class _Moment:
    """
    The state after a change.

    Orders and executions only grow, and closed ones do not change: they are counted, and only open ones copied.
    """

    at_ms: int
    state: AccountState
    orders: int
    executions: int


@dataclass(frozen=True, slots=True)
class _Sample:
    """The prices of one time."""

    at_ms: int
    prices: dict[str, float]


class AccountPast:
    """The states after each change, and the prices between them, of the last minute."""

    def __init__(self, account: AccountState, clock: ExchangeClock) -> None:
        self._account = account
        self._clock = clock
        self._moments: deque[_Moment] = deque()
        self._samples: deque[_Sample] = deque()
        self.keep()

    def keep(self) -> None:
        """Keep the state after a change."""
        account, now_ms = self._account, self._clock.now_ms()
        self._moments.append(_Moment(now_ms, account.copy(), len(account.orders), len(account.executions)))
        _drop_old(self._moments, now_ms)
        self.keep_prices()

    def keep_prices(self) -> None:
        """Keep the current prices, which also change where the account does not."""
        now_ms = self._clock.now_ms()
        self._samples.append(_Sample(now_ms, self._account.prices.sample()))
        _drop_old(self._samples, now_ms)

    def state_at(self, at_ms: int) -> AccountState:
        """Return the state as it stood at a time, at the prices of then; the first one kept if none is older."""
        moment, sample = _last_until(self._moments, at_ms), _last_until(self._samples, at_ms)
        state, account = moment.state, self._account
        orders = list(account.orders.items())[: moment.orders]
        state.orders = {order_id: state.open_orders.get(order_id, order) for order_id, order in orders}
        state.executions = account.executions[: moment.executions]
        state.prices = state.loans.prices = account.prices.as_of(sample.prices)
        return state


def _last_until[Kept: (_Moment, _Sample)](kept: Iterable[Kept], at_ms: int) -> Kept:
    ordered = list(kept)
    return next((one for one in reversed(ordered) if one.at_ms <= at_ms), ordered[0])


def _drop_old[Kept: (_Moment, _Sample)](kept: deque[Kept], now_ms: int) -> None:
    # The last one from before the minute still holds at its beginning.
    while len(kept) > 1 and kept[1].at_ms < now_ms - KEPT_S * 1_000:
        kept.popleft()
