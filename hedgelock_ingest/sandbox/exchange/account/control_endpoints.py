"""Control endpoints of the account under `/sandbox/account`, for tests and operators outside the process."""

from collections.abc import Callable
from typing import Any

from aiohttp import web

from hedgelock_ingest.sandbox.exchange.account.account import SimulatedAccount
from hedgelock_ingest.sandbox.exchange.control_requests import call_by_name, whole_number
from hedgelock_ingest.sandbox.exchange.faults.switches import FaultSwitches


class AccountControl:
    """
    `GET /sandbox/account` and `POST /sandbox/account`.

    The answer of GET holds the current books, and every state, frame and answer from `since_ms` on. An action is
    posted as `{"action": "fill", "symbol": "BTCUSDT", "side": "Buy", "qty": "0.001"}`: the name of a method and its
    arguments, amounts as text.
    """

    def __init__(self, account: SimulatedAccount, exchange: FaultSwitches) -> None:
        self._account = account
        loans = account.loans
        self._actions: dict[str, Callable[..., Any]] = {
            "place_order": account.place_order,
            "cancel_order": account.cancel_order,
            "fill": account.fill,
            "fill_order": account.fill_order,
            "deposit": account.deposit,
            "withdraw": account.withdraw,
            "send_wallet": account.send_wallet,
            "send_wallets": account.send_wallets,
            "borrow_margin": account.borrow_margin,
            "repay_margin": account.repay_margin,
            "accrue_margin_interest": account.accrue_margin_interest,
            "charge_margin_interest": account.charge_margin_interest,
            "set_collateral": account.set_collateral,
            "fund": loans.fund,
            "borrow": loans.borrow,
            "repay": loans.repay,
            "repay_fixed": loans.repay_fixed,
            "add_collateral": loans.add_collateral,
            "reduce_collateral": loans.reduce_collateral,
            "accrue_interest": loans.accrue_interest,
            "liquidate": loans.liquidate,
            "set_price": exchange.set_price,
            "move_price": exchange.move_price,
        }

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of these endpoints."""
        return [web.get("/sandbox/account", self._read), web.post("/sandbox/account", self._act)]

    async def _read(self, request: web.Request) -> web.Response:
        since_ms = whole_number(request, "since_ms") or 0
        account = self._account
        return web.json_response(
            {
                "books": account.books(),
                "wallet": account.wallet(),
                "wallets": [account.wallet(account_type=one) for one in account.account_types],
                "positions": [one.row(account.mark(one)) for one in account.positions.values()],
                "orders": [order.row() for order in account.orders.values()],
                "executions": [execution.row() for execution in account.executions],
                "loans": account.loans.position(),
                **account.history.since(since_ms),
            }
        )

    async def _act(self, request: web.Request) -> web.Response:
        return await call_by_name(request, "action", self._actions)
