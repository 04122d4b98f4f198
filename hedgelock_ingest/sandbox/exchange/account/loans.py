"""The loan account: debts, collateral and the funding wallet, in exact decimals, and the LTV that follows."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from hedgelock_ingest.errors import SandboxError
from hedgelock_ingest.sandbox.exchange.account.amounts import ZERO, positive, rounded, rounded_up, text, total
from hedgelock_ingest.sandbox.exchange.account.loan_records import FixedLoan, LoanRecords
from hedgelock_ingest.sandbox.exchange.account.loan_terms import (
    ANNUAL_RATES,
    HOURLY_RATES,
    INITIAL_LTV,
    LIQUIDATION_ORDER,
    counted_usd,
    tiers_of,
)
from hedgelock_ingest.sandbox.exchange.clock import ExchangeClock
from hedgelock_ingest.sandbox.exchange.market.prices import Prices

_LIQUIDATION_FEE = Decimal("0.02")
_BY_USER, _BY_LIQUIDATION = 1, 2
_ADD, _REDUCE = 0, 1


@dataclass(slots=True)
class FlexibleDebt:
    """A debt of one coin without a term; interest is added every hour."""

    principal: Decimal = ZERO
    interest: Decimal = ZERO

    @property
    def owed(self) -> Decimal:
        """Principal and interest."""
        return self.principal + self.interest


class Loans:
    """
    Flexible and fixed loans over one pool of collateral, which comes from the funding wallet.

    LTV is total debt by total collateral, both in USD, collateral after its tiered ratios. `changed` is called
    with the cause after every change. `margin_call_ltv` and `liquidation_ltv` are Bybit's unless set.
    Source: Bybit V5, Crypto Loan (New); Bybit Help Center, Introduction to Crypto Loans.
    """

    def __init__(self, prices: Prices, clock: ExchangeClock, *, margin_call_ltv: str, liquidation_ltv: str) -> None:
        self.prices = prices
        self.clock = clock
        self.margin_call_ltv = Decimal(margin_call_ltv)
        self.liquidation_ltv = Decimal(liquidation_ltv)
        self.funding: dict[str, Decimal] = {}
        self.collateral: dict[str, Decimal] = {}
        self.flexible: dict[str, FlexibleDebt] = {}
        self.records = LoanRecords()
        self.is_margin_called = False
        self.changed: Callable[[str], None] = lambda cause: None

    def copy(self) -> "Loans":
        """Return a copy that later changes do not reach."""
        copied = Loans(
            self.prices,
            self.clock,
            margin_call_ltv=str(self.margin_call_ltv),
            liquidation_ltv=str(self.liquidation_ltv),
        )
        copied.funding, copied.collateral = dict(self.funding), dict(self.collateral)
        copied.flexible = {coin: replace(debt) for coin, debt in self.flexible.items()}
        copied.records = self.records.copy()
        return copied

    def fund(self, coin: str, amount: Decimal | str) -> None:
        """Put coins into the funding wallet."""
        self._move(coin, positive(amount))
        self.changed("funding deposit")

    def borrow(self, coin: str, amount: Decimal | str, term_days: int | None = None) -> str:
        """
        Borrow coins into the funding wallet; return the order id.

        Args:
            term_days: None for a flexible loan; a fixed one's interest is taken in advance.
        """
        asked = positive(amount)
        if coin not in HOURLY_RATES or (term_days is not None and term_days not in ANNUAL_RATES):
            raise SandboxError(f"no loan of {coin} is offered for this term")
        if self.ltv_after(debt_usd=asked * self.prices.usd(coin)) > INITIAL_LTV:
            raise SandboxError(f"borrowing {text(asked)} {coin} would take the LTV above {INITIAL_LTV}")
        now_ms = self.clock.now_ms()
        if term_days is None:
            self.flexible.setdefault(coin, FlexibleDebt()).principal += asked
            order_id = self.records.borrowed(coin, asked, now_ms)
            self._move(coin, asked)
        else:
            loan = self.records.contracted(coin, asked, now_ms, term_days=term_days, rate=ANNUAL_RATES[term_days])
            order_id = loan.order_id
            self._move(coin, asked - loan.interest)
        self.changed("borrowed")
        return order_id

    def repay(self, coin: str, amount: Decimal | str) -> None:
        """Repay a flexible loan from the funding wallet, interest first."""
        debt, paid = self.flexible.get(coin), positive(amount)
        if debt is None or paid > debt.owed:
            raise SandboxError(f"less than {text(paid)} {coin} is owed")
        self._move(coin, -paid)
        self._pay_flexible(coin, paid, _BY_USER)
        self.changed("repaid")

    def repay_fixed(self, loan_id: str, amount: Decimal | str) -> None:
        """Repay a fixed loan from the funding wallet, before its term."""
        loan, paid = self.records.contract(loan_id), positive(amount)
        if paid > loan.residual:
            raise SandboxError(f"less than {text(paid)} {loan.coin} is owed on loan {loan_id}")
        self._move(loan.coin, -paid)
        self._pay_fixed(loan, paid, _BY_USER)
        self.changed("repaid")

    def add_collateral(self, coin: str, amount: Decimal | str) -> int:
        """Move coins from the funding wallet to the collateral; return the id of the adjustment."""
        return self._adjust(coin, positive(amount), _ADD)

    def reduce_collateral(self, coin: str, amount: Decimal | str) -> int:
        """Move collateral back to the funding wallet; return the id of the adjustment."""
        taken = positive(amount)
        if taken > self.max_reduction(coin):
            raise SandboxError(f"taking {text(taken)} {coin} would bring the LTV above {INITIAL_LTV}")
        return self._adjust(coin, taken, _REDUCE)

    def accrue_interest(self, hours: int = 1) -> None:
        """Add some hours of interest at once."""
        for _ in range(hours):
            for coin, debt in self.flexible.items():
                debt.interest += rounded_up(debt.owed * HOURLY_RATES[coin], 8)
        if hours:
            self.changed("interest")

    def watch(self) -> None:
        """Call for margin, or liquidate, when the current prices require it."""
        ltv = self.ltv()
        if ltv >= self.liquidation_ltv and any(self.collateral.values()):
            self.liquidate()
        elif (ltv >= self.margin_call_ltv) != self.is_margin_called:
            self.is_margin_called = not self.is_margin_called
            self.changed("margin called" if self.is_margin_called else "margin call over")

    def liquidate(self) -> None:
        """Sell collateral in its order at the current prices, less a fee, until no debt is left."""
        for coin in list(self.flexible):
            owed = self.flexible[coin].owed
            self._pay_flexible(coin, self._raised(coin, owed), _BY_LIQUIDATION)
        for loan in self.records.unpaid():
            self._pay_fixed(loan, self._raised(loan.coin, loan.residual), _BY_LIQUIDATION)
        self.is_margin_called = self.ltv() >= self.margin_call_ltv
        self.changed("liquidated")

    def lend_legacy(self, coin: str, amount: Decimal | str, collateral_coin: str, collateral: Decimal | str) -> None:
        """Add an order of the legacy loan product, which only its own endpoint returns."""
        debt, pledged = positive(amount), positive(collateral)
        ltv = debt * self.prices.usd(coin) / (pledged * self.prices.usd(collateral_coin))
        self.records.lent_legacy(coin, debt, collateral_coin, pledged, ltv=rounded_up(ltv, 4))
        self.changed("legacy loan")

    def ltv(self) -> Decimal:
        """Return debt by collateral at the current prices, up to six digits, rounded up."""
        return self.ltv_after()

    def ltv_after(self, *, debt_usd: Decimal = ZERO, taken: tuple[str, Decimal] = ("", ZERO)) -> Decimal:
        """Return what the LTV would be with more debt, or with collateral taken away."""
        debt = total(fixed + flexible for _, fixed, flexible in self._debts_usd()) + rounded(debt_usd, 2)
        collateral = total(
            self._counted(coin, amount - (taken[1] if coin == taken[0] else ZERO))
            for coin, amount in self.collateral.items()
        )
        if not debt:
            return ZERO
        return rounded_up(debt / collateral, 6) if collateral > 0 else Decimal(9999)

    def max_reduction(self, coin: str) -> Decimal:
        """Return how much collateral may be taken away without passing the initial LTV."""
        held = self.collateral.get(coin, ZERO)
        step = Decimal("0.00000001")
        low, high = 0, int(held / step)
        while low < high:
            middle = (low + high + 1) // 2
            if self.ltv_after(taken=(coin, middle * step)) <= INITIAL_LTV:
                low = middle
            else:
                high = middle - 1
        return low * step

    def position(self) -> dict[str, Any]:
        """Return the result of `/v5/crypto-loan-common/position`; all of it is text."""
        debts = self._debts_usd()
        counted = {coin: self._counted(coin, amount) for coin, amount in self.collateral.items() if amount}
        return {
            "borrowList": [self._borrow_row(coin, fixed, flexible) for coin, fixed, flexible in debts],
            "collateralList": [
                {"amount": text(self.collateral[coin]), "amountUSD": text(usd), "currency": coin}
                for coin, usd in counted.items()
            ],
            "ltv": text(self.ltv()),
            "supplyList": [],
            "totalCollateral": text(total(counted.values())),
            "totalDebt": text(total(fixed + flexible for _, fixed, flexible in debts)),
            "totalSupply": "0",
            "colRes": "0",
        }

    def _borrow_row(self, coin: str, fixed_usd: Decimal, flexible_usd: Decimal) -> dict[str, str]:
        debt = self.flexible.get(coin, FlexibleDebt())
        return {
            "fixedTotalDebt": text(self.records.fixed_debt(coin)),
            "fixedTotalDebtUSD": text(fixed_usd),
            "flexibleHourlyInterestRate": text(HOURLY_RATES[coin]),
            "flexibleTotalDebt": text(debt.owed),
            "flexibleTotalDebtUSD": text(flexible_usd),
            "loanCurrency": coin,
        }

    def _debts_usd(self) -> list[tuple[str, Decimal, Decimal]]:
        found = []
        for coin in HOURLY_RATES:
            fixed, debt = self.records.fixed_debt(coin), self.flexible.get(coin, FlexibleDebt())
            if fixed or debt.owed:
                price = self.prices.usd(coin)
                found.append((coin, rounded(fixed * price, 2), rounded(debt.owed * price, 2)))
        return found

    def _counted(self, coin: str, amount: Decimal) -> Decimal:
        return counted_usd(amount * self.prices.usd(coin), tiers_of(coin))

    def _adjust(self, coin: str, amount: Decimal, direction: int) -> int:
        before = self.ltv()
        signed = amount if direction == _ADD else -amount
        self._move(coin, -signed)
        self.collateral[coin] = self.collateral.get(coin, ZERO) + signed
        adjust_id = self.records.adjusted(
            coin, amount, self.clock.now_ms(), direction=direction, before=before, after=self.ltv()
        )
        self.changed("collateral adjusted")
        return adjust_id

    def _pay_flexible(self, coin: str, paid: Decimal, repay_type: int) -> None:
        debt = self.flexible[coin]
        interest = min(debt.interest, paid)
        debt.interest -= interest
        debt.principal -= paid - interest
        if not debt.owed:
            del self.flexible[coin]
        self.records.repaid(coin, paid, self.clock.now_ms(), repay_type=repay_type)

    def _pay_fixed(self, loan: FixedLoan, paid: Decimal, repay_type: int) -> None:
        loan.residual -= paid
        self.records.repaid(loan.coin, paid, self.clock.now_ms(), repay_type=repay_type, loan=loan)

    def _raised(self, debt_coin: str, owed: Decimal) -> Decimal:
        price = self.prices.usd(debt_coin)
        missing_usd = owed * price
        for coin in LIQUIDATION_ORDER:
            brings = self.prices.usd(coin) * (1 - _LIQUIDATION_FEE)
            held = self.collateral.get(coin, ZERO)
            sold = min(held, rounded_up(missing_usd / brings, 8))
            if sold:
                self.collateral[coin] = held - sold
                missing_usd = max(missing_usd - sold * brings, ZERO)
        return owed if not missing_usd else owed - rounded_up(missing_usd / price, 8)

    def _move(self, coin: str, amount: Decimal) -> None:
        left = self.funding.get(coin, ZERO) + amount
        if left < 0:
            raise SandboxError(f"the funding wallet holds less {coin} than {text(-amount)}")
        self.funding[coin] = left
