"""Records of the loan account: contracts, and the histories that REST returns."""

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from hedgelock_ingest.errors import SandboxError
from hedgelock_ingest.sandbox.exchange.account.amounts import ZERO, text, total

_DAY_MS = 86_400_000
_SUCCESS = 1
_UNPAID, _REPAID = 1, 2


@dataclass(slots=True)
class FixedLoan:
    """One fixed loan contract; its interest was paid when it was borrowed."""

    loan_id: str
    order_id: str
    coin: str
    amount: Decimal
    residual: Decimal
    interest: Decimal
    annual_rate: Decimal
    term_days: int
    borrowed_ms: int

    def contract_row(self) -> dict[str, Any]:
        """Describe the contract. Source: Bybit V5, Get Borrow Contract Info."""
        return {
            "annualRate": text(self.annual_rate),
            "autoRepay": "true",
            "borrowCurrency": self.coin,
            "borrowTime": str(self.borrowed_ms),
            "interestPaid": text(self.interest),
            "loanId": self.loan_id,
            "orderId": self.order_id,
            "repayType": "1",
            "repaymentTime": str(self.borrowed_ms + self.term_days * _DAY_MS),
            "residualPenaltyInterest": "0",
            "residualPrincipal": text(self.residual),
            "status": _UNPAID if self.residual else _REPAID,
            "term": str(self.term_days),
        }

    def order_row(self) -> dict[str, Any]:
        """Describe the order of the contract; here ids and terms are numbers. Source: Get Borrow Order Info."""
        return {
            "annualRate": text(self.annual_rate),
            "autoRepay": "true",
            "filledQty": text(self.amount),
            "orderCurrency": self.coin,
            "orderId": int(self.order_id),
            "orderQty": text(self.amount),
            "orderTime": str(self.borrowed_ms),
            "repayType": "1",
            "state": 3,
            "term": self.term_days,
        }


class LoanRecords:
    """
    Fixed contracts, and the rows of all histories, oldest first.

    Ids of one history grow with time and serve as its cursor.
    """

    def __init__(self) -> None:
        self.contracts: dict[str, FixedLoan] = {}
        self.borrowings: list[dict[str, Any]] = []
        self.flexible_repayments: list[dict[str, Any]] = []
        self.fixed_repayments: list[dict[str, Any]] = []
        self.adjustments: list[dict[str, Any]] = []
        self.legacy: list[dict[str, Any]] = []
        self._next_id = 1_000

    def copy(self) -> "LoanRecords":
        """Return a copy that later changes do not reach; rows of histories never change."""
        copied = LoanRecords()
        copied.contracts = {loan_id: replace(loan) for loan_id, loan in self.contracts.items()}
        copied.borrowings = list(self.borrowings)
        copied.flexible_repayments = list(self.flexible_repayments)
        copied.fixed_repayments = list(self.fixed_repayments)
        copied.adjustments = list(self.adjustments)
        copied.legacy = list(self.legacy)
        return copied

    def borrowed(self, coin: str, amount: Decimal, now_ms: int) -> str:
        """Record a flexible loan and return its order id."""
        order_id = self._new_id()
        self.borrowings.append(
            {
                "borrowTime": now_ms,
                "initialLoanAmount": text(amount),
                "loanCurrency": coin,
                "orderId": str(order_id),
                "status": _SUCCESS,
            }
        )
        return str(order_id)

    def contracted(self, coin: str, amount: Decimal, now_ms: int, *, term_days: int, rate: Decimal) -> FixedLoan:
        """Record a fixed loan."""
        loan = FixedLoan(
            loan_id=str(self._new_id()),
            order_id=str(self._new_id() + 12_000),
            coin=coin,
            amount=amount,
            residual=amount,
            interest=(amount * rate * term_days / 365).quantize(Decimal("1e-18")),
            annual_rate=rate,
            term_days=term_days,
            borrowed_ms=now_ms,
        )
        self.contracts[loan.loan_id] = loan
        return loan

    def contract(self, loan_id: str) -> FixedLoan:
        """Return a fixed loan."""
        if loan_id not in self.contracts:
            raise SandboxError(f"no fixed loan has the id {loan_id}")
        return self.contracts[loan_id]

    def unpaid(self) -> list[FixedLoan]:
        """Return the fixed loans on which something is owed."""
        return [loan for loan in self.contracts.values() if loan.residual]

    def fixed_debt(self, coin: str) -> Decimal:
        """Return what is owed of a coin on fixed loans."""
        return total(loan.residual for loan in self.contracts.values() if loan.coin == coin)

    def repaid(
        self, coin: str, amount: Decimal, now_ms: int, *, repay_type: int, loan: FixedLoan | None = None
    ) -> None:
        """Record a repayment: 1 by the user, 2 by liquidation."""
        if amount <= ZERO:
            return
        row: dict[str, Any] = {
            "loanCurrency": coin,
            "repayAmount": text(amount),
            "repayId": str(self._new_id()),
            "repayStatus": _SUCCESS,
            "repayTime": now_ms,
            "repayType": repay_type,
        }
        if loan is None:
            self.flexible_repayments.append(row)
            return
        details = [{"loanCurrency": coin, "loanId": loan.loan_id, "repayAmount": text(amount)}]
        self.fixed_repayments.append({"details": details, **row})

    def lent_legacy(self, coin: str, debt: Decimal, collateral_coin: str, collateral: Decimal, *, ltv: Decimal) -> None:
        """Record a flexible order of the legacy product."""
        self.legacy.append(
            {
                "collateralAmount": text(collateral),
                "collateralCurrency": collateral_coin,
                "currentLTV": text(ltv),
                "expirationTime": "",
                "hourlyInterestRate": "0.0000010633",
                "loanCurrency": coin,
                "loanTerm": "",
                "orderId": str(self._new_id() + 1_793_683_005_081_680_000),
                "residualInterest": "0",
                "residualPenaltyInterest": "0",
                "totalDebt": text(debt),
            }
        )

    def adjusted(
        self, coin: str, amount: Decimal, now_ms: int, *, direction: int, before: Decimal, after: Decimal
    ) -> int:
        """Record that collateral was added (0) or taken (1); return the id."""
        adjust_id = self._new_id()
        self.adjustments.append(
            {
                "adjustId": adjust_id,
                "adjustTime": now_ms,
                "afterLTV": text(after),
                "amount": text(amount),
                "collateralCurrency": coin,
                "direction": direction,
                "preLTV": text(before),
                "status": _SUCCESS,
            }
        )
        return adjust_id

    def _new_id(self) -> int:
        self._next_id += 2
        return self._next_id
