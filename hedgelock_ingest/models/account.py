"""The account: balances, positions, orders, executions, and the loan."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from hedgelock_ingest.models.values import Digits, Published, Timestamp


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Position(_Part):
    """
    The current position in one side of one symbol; `side` is null when flat. Prices and PnL are as of `updated_at`.

    Source: Bybit V5, WebSocket Stream, Private, Position.
    """

    category: str
    symbol: str
    position_index: int
    side: Literal["Buy", "Sell"] | None
    size: Digits
    entry_price: Digits | None
    mark_price: Digits | None
    leverage: Digits | None
    position_value: Digits | None
    liquidation_price: Digits | None
    break_even_price: Digits | None
    take_profit: Digits | None
    stop_loss: Digits | None
    unrealised_pnl: Digits | None
    current_realised_pnl: Digits | None
    cumulative_realised_pnl: Digits | None
    status: str | None
    updated_at: Timestamp
    sequence: int


class PositionChange(Published):
    """
    A position before and after a change; `before` is null for a position not known before.

    `pnl_change` is the change of the sum of cumulative realised and unrealised PnL, null if any of them is unknown.
    """

    timestamp: Timestamp
    account_id: str
    category: str
    symbol: str
    position_index: int
    before: Position | None
    after: Position
    pnl_change: Digits | None
    healed: bool = False


class OrderUpdate(Published):
    """
    The state of an order after a change.

    Source: Bybit V5, WebSocket Stream, Private, Order.
    """

    timestamp: Timestamp
    account_id: str
    category: str
    symbol: str
    order_id: str
    order_link_id: str | None
    status: str
    side: str | None
    order_type: str | None
    price: Digits | None
    quantity: Digits
    filled_quantity: Digits | None
    remaining_quantity: Digits | None
    average_price: Digits | None
    filled_value: Digits | None
    trigger_price: Digits | None
    time_in_force: str | None
    reduce_only: bool | None
    position_index: int | None
    cancel_type: str | None
    reject_reason: str | None
    created_at: Timestamp
    healed: bool = False


class Execution(Published):
    """
    One fill, funding payment or settlement; a negative fee is a rebate.

    Source: Bybit V5, WebSocket Stream, Private, Execution.
    """

    timestamp: Timestamp
    account_id: str
    category: str
    symbol: str
    exec_id: str
    order_id: str
    order_link_id: str | None
    side: str
    price: Digits
    size: Digits
    fee: Digits | None
    fee_currency: str | None
    fee_rate: Digits | None
    value: Digits | None
    exec_type: str | None
    is_maker: bool | None
    closed_size: Digits | None
    exec_pnl: Digits | None
    mark_price: Digits | None
    remaining_quantity: Digits | None
    sequence: int | None
    healed: bool = False


class Seen(_Part):
    """When each part of the account was last seen, by Bybit's clock."""

    wallet: Timestamp
    positions: Timestamp
    collateral: Timestamp
    loans: Timestamp


class Margin(_Part):
    """
    Figures of the unified account in USD, and its margin rates; null where they do not apply to the account.

    Source: Bybit V5, WebSocket Stream, Private, Wallet; a change of unrealised PnL alone does not update them there.
    """

    total_equity: Digits | None
    total_wallet_balance: Digits | None
    total_margin_balance: Digits | None
    total_available_balance: Digits | None
    total_perp_upl: Digits | None
    total_initial_margin: Digits | None
    total_maintenance_margin: Digits | None
    account_im_rate: Digits | None
    account_mm_rate: Digits | None


class BalanceDetail(_Part):
    """
    What else is known of a coin of the unified account, as of `as_of`, when its balance was last reported.

    `available_balance` is what may be transferred out, as of `available_balance_at`: Bybit reports it over REST only.

    Source: Bybit V5, WebSocket Stream, Private, Wallet; Account, Get Transferable Amount (Unified).
    """

    equity: Digits | None
    usd_value: Digits | None
    unrealised_pnl: Digits | None
    borrow_amount: Digits | None
    accrued_interest: Digits | None
    locked: Digits | None
    collateral_switch: bool | None
    margin_collateral: bool | None
    available_balance: Digits | None
    available_balance_at: Timestamp | None
    as_of: Timestamp | None


class AccountUpdate(Published):
    """
    The complete account after a change of any part; the first is published once every part was seen.

    `balances` are wallet balances by coin, `balances_detail` and `margin` the other figures of the unified account.
    `loan_amount`, `collateral_value` (after Bybit's collateral ratios) and `ltv` are the loan account's, the first two
    in USD. `positions` are those that are not flat.
    """

    timestamp: Timestamp
    account_id: str
    balances: dict[str, Digits]
    loan_amount: Digits
    collateral_value: Digits
    ltv: Digits
    positions: list[Position]
    seen: Seen
    margin: Margin | None = None
    balances_detail: dict[str, BalanceDetail] | None = None


class Balance(_Part):
    """The balance of one coin; `available_balance` is what may be transferred out, null until Bybit reported it."""

    coin: str
    wallet_balance: Digits
    available_balance: Digits | None


class CollateralInfo(_Part):
    """
    The loan account, in USD.

    `collateral_ratio` is collateral over debt with 4 digits, null without debt; `free_collateral` collateral less debt.
    """

    ltv: Digits
    collateral_value: Digits
    borrowed_amount: Digits
    collateral_ratio: Digits | None
    free_collateral: Digits


class LoanInfo(_Part):
    """Bybit's rows of each kind of loan, under snake_case names; null for a kind that was not requested."""

    flexible: list[dict[str, str | int | bool | None]] | None
    fixed: list[dict[str, str | int | bool | None]] | None
    legacy: list[dict[str, str | int | bool | None]] | None


class AsOf(_Part):
    """When each part of a message was last reported, by Bybit's clock; null for a part that never was."""

    balances: Timestamp | None
    positions: Timestamp | None
    collateral_info: Timestamp | None
    loan_info: Timestamp | None


class AccountRaw(Published):
    """
    The account as last known after one frame or one poll, in the format of HedgeLock's first collector.

    `origin` names the part that is new, such as `websocket:wallet` or `rest:collateral`; the others are as old as
    `as_of` states, and null if they were never seen. Polls by Dagster complete their messages from the topic.
    `balances` are those of the unified account, which `balances_detail` and `margin` describe further;
    `other_balances` are by Bybit's type of account, such as `CONTRACT`. `positions` are those that are not flat, and
    those that the origin reports as flat.
    """

    timestamp: Timestamp
    account_id: str
    balances: dict[str, Balance] | None
    positions: list[Position] | None
    collateral_info: CollateralInfo | None
    loan_info: LoanInfo | None
    origin: str
    other_balances: dict[str, dict[str, Balance]] | None = None
    margin: Margin | None = None
    balances_detail: dict[str, BalanceDetail] | None = None
    as_of: AsOf | None = None
