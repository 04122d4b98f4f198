"""Assembly of the simulated account: holdings, endpoints, sockets and activity."""

import asyncio
from random import Random

from aiohttp import web

from hedgelock_ingest.errors import SandboxError
from hedgelock_ingest.sandbox.exchange.account.account import SimulatedAccount
from hedgelock_ingest.sandbox.exchange.account.activity import COURSES, AccountActivity, PriceFall
from hedgelock_ingest.sandbox.exchange.account.control_endpoints import AccountControl
from hedgelock_ingest.sandbox.exchange.account.loans import Loans
from hedgelock_ingest.sandbox.exchange.account.sent_messages import AccountHistory
from hedgelock_ingest.sandbox.exchange.faults.lag import Replica
from hedgelock_ingest.sandbox.exchange.faults.switches import FaultSwitches
from hedgelock_ingest.sandbox.exchange.keys import KEYS
from hedgelock_ingest.sandbox.exchange.market.prices import Prices
from hedgelock_ingest.sandbox.exchange.rest.access_control import AccessControl
from hedgelock_ingest.sandbox.exchange.rest.account import AccountEndpoints
from hedgelock_ingest.sandbox.exchange.rest.loans import LoanEndpoints
from hedgelock_ingest.sandbox.exchange.rest.trading import TradingEndpoints
from hedgelock_ingest.sandbox.exchange.sockets.private_socket import PrivateSockets

_TICK_S = 0.1
_FUNDING = {"BTC": "2", "ETH": "20", "USDT": "30000", "USDC": "1000"}
_COLLATERAL = {"BTC": "1", "ETH": "10"}
_FLEXIBLE = {"USDT": "45000"}
_FIXED = ("USDC", "8000", 30)


class AccountInterface:
    """Everything that needs a key: the account, its endpoints and its sockets."""

    def __init__(self, exchange: FaultSwitches) -> None:
        scenario = exchange.scenario
        if scenario.course not in COURSES:
            raise SandboxError(f"no scenario is called {scenario.course!r}; there are {', '.join(COURSES)}")
        if scenario.key is not None and scenario.key not in KEYS:
            raise SandboxError(f"no key is called {scenario.key!r}; there are {', '.join(KEYS)}")
        self._exchange = exchange
        prices = Prices(exchange.channels)
        history = AccountHistory(scenario.history_size)
        loans = Loans(
            prices,
            exchange.clock,
            margin_call_ltv=scenario.margin_call_ltv,
            liquidation_ltv=scenario.liquidation_ltv,
        )
        random = Random(f"{scenario.seed}:account")
        self.account = SimulatedAccount(
            prices,
            loans,
            clock=exchange.clock,
            random=random,
            history=history,
            contract_wallet=scenario.contract_wallet,
        )
        _take_loans(loans)
        self.account.open_hedge()
        replica = Replica(self.account, self.account.past, exchange.clock, exchange.rest_lags)
        access = AccessControl(exchange.clock, history, replica, scenario.requests_per_s)
        self._sockets = PrivateSockets(exchange, access)
        self.account.publish_to(self._sockets.publish)
        self._fall = PriceFall(scenario.course, loans, prices, seconds=scenario.course_s)
        self._activity = (
            AccountActivity(self.account, scenario.linear_symbols, interval_s=scenario.account_life_s, random=random)
            if scenario.account_life_s
            else None
        )
        endpoints = [
            *AccountEndpoints(access).endpoints(),
            *TradingEndpoints(exchange.clock).endpoints(),
            *LoanEndpoints().endpoints(),
        ]
        self._routes = [access.route(endpoint) for endpoint in endpoints]

    def routes(self) -> list[web.RouteDef]:
        """Return all routes of the account."""
        return [*self._routes, *self._sockets.routes(), *AccountControl(self.account, self._exchange).routes()]

    async def run(self) -> None:
        """Run the account's timed changes: interest, price falls, margin calls, random activity, idle lines."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sockets.cut_idle_lines())
            group.create_task(self._run_timed_changes())

    async def _run_timed_changes(self) -> None:
        loop = asyncio.get_running_loop()
        self._fall.begin(loop.time())
        interest_due_s = loop.time() + self._exchange.scenario.interest_hour_s
        while True:
            await asyncio.sleep(_TICK_S)
            now_s = loop.time()
            if now_s >= interest_due_s:
                interest_due_s += self._exchange.scenario.interest_hour_s
                self.account.loans.accrue_interest()
            self._fall.tick(now_s)
            self.account.loans.watch()
            self.account.past.keep_prices()
            if self._activity is not None:
                self._activity.tick(now_s)


def _take_loans(loans: Loans) -> None:
    for coin, amount in _FUNDING.items():
        loans.fund(coin, amount)
    for coin, amount in _COLLATERAL.items():
        loans.add_collateral(coin, amount)
    for coin, amount in _FLEXIBLE.items():
        loans.borrow(coin, amount)
    loans.borrow(*_FIXED)
