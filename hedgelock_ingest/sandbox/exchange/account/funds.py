"""The funds of the account: deposits, margin debts and collateral, and the private messages of each change."""

from collections.abc import Mapping
from decimal import Decimal

from hedgelock_ingest.errors import SandboxError
from hedgelock_ingest.sandbox.exchange.account.amounts import ZERO, positive, text
from hedgelock_ingest.sandbox.exchange.account.loans import Loans
from hedgelock_ingest.sandbox.exchange.account.past import AccountPast
from hedgelock_ingest.sandbox.exchange.account.sent_messages import AccountHistory, PrivateFrames, Publish
from hedgelock_ingest.sandbox.exchange.account.state import AccountState
from hedgelock_ingest.sandbox.exchange.account.wallet import UNIFIED, CoinHolding
from hedgelock_ingest.sandbox.exchange.clock import ExchangeClock
from hedgelock_ingest.sandbox.exchange.market.prices import Prices

_UNIFIED = {"USDT": "50000", "BTC": "0.5", "ETH": "4", "USDC": "5000"}


class AccountFunds(AccountState):
    """
    The account as its owner moves funds, without trading.

    From `publish_to` on, every change is published on the private stream as Bybit does.
    """

    def __init__(
        self,
        prices: Prices,
        loans: Loans,
        *,
        clock: ExchangeClock,
        history: AccountHistory,
        contract_wallet: Mapping[str, str],
    ) -> None:
        super().__init__(
            prices,
            loans,
            coins={name: CoinHolding(Decimal(amount)) for name, amount in _UNIFIED.items()},
            contract_coins={name: CoinHolding(Decimal(amount)) for name, amount in contract_wallet.items()},
        )
        self.clock = clock
        self.history = history
        self._frames = PrivateFrames(clock, history)
        self.past = AccountPast(self, clock)
        loans.changed = self.note

    def publish_to(self, publish: Publish) -> None:
        """Hand all further messages of the private stream to `publish`, with their topic."""
        self._frames.publish = publish

    def deposit(self, coin: str, amount: Decimal | str, *, account_type: str = UNIFIED) -> None:
        """Put coins into a wallet."""
        self._book(coin, positive(amount), "deposit", account_type=account_type)

    def withdraw(self, coin: str, amount: Decimal | str, *, account_type: str = UNIFIED) -> None:
        """Take coins out of a wallet."""
        left = self._wallet(account_type).get(coin, CoinHolding()).balance - positive(amount)
        if left < 0:
            raise SandboxError(f"the wallet holds less {coin} than {amount}")
        self._book(coin, -positive(amount), "withdrawal", account_type=account_type)

    def borrow_margin(self, coin: str, amount: Decimal | str) -> None:
        """Borrow coins for margin trading into the unified wallet, where they count as balance but not as equity."""
        holding, asked = self.coins.setdefault(coin, CoinHolding()), positive(amount)
        holding.borrowed += asked
        self._book(coin, asked, "margin borrowed")

    def repay_margin(self, coin: str, amount: Decimal | str) -> None:
        """Repay coins that were borrowed for margin trading from the unified wallet."""
        holding, paid = self.coins.get(coin, CoinHolding()), positive(amount)
        if paid > min(holding.borrowed, holding.balance):
            raise SandboxError(f"less than {text(paid)} {coin} is borrowed or held")
        holding.borrowed -= paid
        self._book(coin, -paid, "margin repaid")

    def accrue_margin_interest(self, coin: str, amount: Decimal | str) -> None:
        """Add interest on a margin debt; it is owed, and not in equity before it is charged."""
        self.coins.setdefault(coin, CoinHolding()).interest += positive(amount)
        self.note("margin interest")

    def charge_margin_interest(self, coin: str) -> None:
        """Charge the interest of a margin debt to the balance, as Bybit does every hour."""
        holding = self.coins.setdefault(coin, CoinHolding())
        charged, holding.interest = holding.interest, ZERO
        self._book(coin, -charged, "margin interest charged")

    def set_collateral(self, coin: str, *, is_on: bool) -> None:
        """Let a coin back margin, or no longer."""
        self.coins.setdefault(coin, CoinHolding()).is_collateral = is_on
        self.send_wallet(coin)
        self.note("collateral switched")

    def send_wallet(self, *names: str, account_type: str = UNIFIED) -> None:
        """Send a wallet again, with some of its coins or all."""
        self._frames.changed("wallet", self.wallet(*names, account_type=account_type))

    def send_wallets(self) -> None:
        """Send all wallets of the account in one message."""
        self._frames.changed("wallet", *(self.wallet(account_type=one) for one in self.account_types))

    def note(self, cause: str) -> None:
        """Record the current entries in the history, and keep the state for answers that lag."""
        self.history.state(self.clock.now_ms(), cause, self.entries())
        self.past.keep()

    def _book(self, coin: str, amount: Decimal, cause: str, *, account_type: str = UNIFIED) -> None:
        self._wallet(account_type).setdefault(coin, CoinHolding()).balance += amount
        self.send_wallet(coin, account_type=account_type)
        self.note(cause)

    def _wallet(self, account_type: str) -> dict[str, CoinHolding]:
        if account_type not in self.account_types:
            raise SandboxError(f"the account has no wallet {account_type}")
        return self.holdings(account_type)
