"""The account: translate private frames and REST answers into changes, the merged view, and `account_raw`."""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Final

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.private_messages import (
    ExecutionMessage,
    ExecutionRow,
    OrderMessage,
    OrderRow,
    PositionMessage,
    PositionRow,
    PrivateMessage,
    WalletAccount,
    WalletMessage,
    order_identity,
    position_key,
)
from hedgelock_ingest.translate.formatting import iso
from hedgelock_ingest.translate.record_builder import RecordBuilder, Value
from hedgelock_ingest.translate.state import IDENTITIES_REMEMBERED, AccountState, Coin, PositionFields

FLAT_SIDES: Final = ("", "None")
PARTS = ("wallet", "positions", "collateral", "loans")


class Account:
    """Applies frames and answers about one account to its state, and adds the resulting records."""

    def __init__(self, account_id: str, state: AccountState) -> None:
        """Continue from `state`, which is changed in place."""
        self.state = state
        self._account_id = account_id
        self._orders = dict.fromkeys(state.orders)
        self._executions = dict.fromkeys(state.executions)

    def save(self) -> AccountState:
        """Return the state, including the remembered orders and executions."""
        self.state.orders, self.state.executions = list(self._orders), list(self._executions)
        return self.state

    def take(self, builder: RecordBuilder, message: PrivateMessage) -> None:
        """Apply one frame of a private line."""
        match message:
            case WalletMessage():
                self.take_wallet(builder, message.data, message.ts, origin="websocket:wallet")
            case PositionMessage():
                rows = [(row.category, row) for row in message.data]
                self.take_positions(builder, rows, message.ts, origin="websocket:position")
            case OrderMessage():
                self.take_orders(builder, [(row.category, row) for row in message.data], message.ts, healed=False)
            case ExecutionMessage():
                self.take_executions(builder, [(row.category, row) for row in message.data], message.ts, healed=False)

    def take_wallet(
        self,
        builder: RecordBuilder,
        accounts: Iterable[WalletAccount],
        at_ms: int,
        *,
        origin: str,
        is_complete: bool = False,
    ) -> None:
        """Merge balances coin by coin; a complete list from REST replaces them all unless a later frame came."""
        coins = {
            coin.coin: Coin(coin.walletBalance, coin.availableToWithdraw or None)
            for account in accounts
            for coin in account.coin
        }
        balances = {
            name: {"coin": name, "wallet_balance": coin.wallet, "available_balance": coin.available}
            for name, coin in coins.items()
        }
        self.add_raw(builder, at_ms, origin, balances=balances)
        seen_ms = self.state.seen_ms.get("wallet", 0)
        if is_complete and at_ms < seen_ms:
            return
        # A frame is applied even if a REST answer has a later time: REST may lag behind the stream.
        self.state.coins = coins if is_complete else self.state.coins | coins
        self.state.seen_ms["wallet"] = max(at_ms, seen_ms)
        self.add_update(builder, at_ms)

    def take_positions(
        self,
        builder: RecordBuilder,
        rows: Sequence[tuple[str, PositionRow]],
        at_ms: int,
        *,
        origin: str,
        is_complete: bool = False,
        healed: bool = False,
    ) -> None:
        """Record each position that changed; positions missing from a complete list have become flat."""
        positions = {position_key(category, row): (row, _position(category, row)) for category, row in rows}
        has_changed = False
        for key, (row, position) in positions.items():
            as_of = int(row.updatedTime), row.seq
            if as_of > self.state.positions_as_of.get(key, (-1, -2)):
                self.state.positions_as_of[key] = as_of
                has_changed |= self._change(builder, key, position, at_ms, healed=healed)
        if is_complete:
            for key in [key for key in self.state.positions if key not in positions and _is_open(self.state, key)]:
                has_changed |= self._change(
                    builder, key, _flattened(self.state.positions[key], at_ms), at_ms, healed=True
                )
        self.state.seen_ms["positions"] = max(at_ms, self.state.seen_ms.get("positions", 0))
        if has_changed or is_complete:
            self.add_raw(builder, at_ms, origin, positions=[position for _, position in positions.values()])
            self.add_update(builder, at_ms)

    def take_orders(
        self, builder: RecordBuilder, rows: Iterable[tuple[str, OrderRow]], at_ms: int, *, healed: bool
    ) -> None:
        """Record each order state that was not recorded before."""
        for category, row in rows:
            if _is_new(self._orders, order_identity(row)):
                value = self._head(builder, iso(int(row.updatedTime)), healed=healed) | _order(category, row)
                self._add(builder, Topic.ORDER_UPDATES, f"{category}:{row.symbol}", value | {"healed": healed}, at_ms)

    def take_executions(
        self, builder: RecordBuilder, rows: Iterable[tuple[str, ExecutionRow]], at_ms: int, *, healed: bool
    ) -> None:
        """Record each execution that was not recorded before."""
        for category, row in rows:
            if _is_new(self._executions, row.execId):
                value = self._head(builder, iso(int(row.execTime)), healed=healed) | _execution(category, row)
                self._add(builder, Topic.EXECUTIONS, f"{category}:{row.symbol}", value | {"healed": healed}, at_ms)

    def add_raw(self, builder: RecordBuilder, at_ms: int, origin: str, **parts: object) -> None:
        """Add a record to `account_raw` with the parts that the origin holds."""
        empty = dict.fromkeys(("balances", "positions", "collateral_info", "loan_info"))
        value = {
            "schema_version": 1,
            "source": "collector",
            "trace_id": builder.trace_id,
            "timestamp": iso(at_ms),
            "account_id": self._account_id,
            **empty,
            **parts,
            "origin": origin,
        }
        builder.add(Topic.ACCOUNT_RAW, self._account_id.encode(), value, at_ms)

    def add_update(self, builder: RecordBuilder, at_ms: int) -> None:
        """Add the merged view, once every part was seen at least once."""
        state = self.state
        if state.loan is None or any(part not in state.seen_ms for part in PARTS):
            return
        value = {
            **self._head(builder, iso(at_ms), healed=False),
            "balances": {name: coin.wallet for name, coin in state.coins.items()},
            **state.loan,
            "positions": [position for key, position in state.positions.items() if _is_open(state, key)],
            "seen": {part: iso(state.seen_ms[part]) for part in PARTS},
        }
        builder.add(Topic.ACCOUNT_UPDATES, self._account_id.encode(), value, at_ms)

    @property
    def missing_parts(self) -> list[str]:
        """List the parts that were never seen; until all were, no merged view is published."""
        return [part for part in PARTS if part not in self.state.seen_ms]

    def _change(self, builder: RecordBuilder, key: str, after: PositionFields, at_ms: int, *, healed: bool) -> bool:
        before = self.state.positions.get(key)
        self.state.positions[key] = after
        if before is None and not _is_open(self.state, key):
            return False  # flat when first seen: nothing changed
        if before is not None and _without_time(before) == _without_time(after):
            return False
        value = {
            **self._head(builder, iso(at_ms), healed=healed),
            "category": after["category"],
            "symbol": after["symbol"],
            "position_index": after["position_index"],
            "before": before,
            "after": after,
            "pnl_change": None if before is None else _pnl_change(before, after),
            "healed": healed,
        }
        self._add(builder, Topic.POSITION_CHANGES, f"{after['category']}:{after['symbol']}", value, at_ms)
        return True

    def _head(self, builder: RecordBuilder, timestamp: str, *, healed: bool) -> dict[str, object]:
        return {
            "schema_version": 1,
            "source": "rest-backfill" if healed else "websocket",
            "trace_id": builder.trace_id,
            "timestamp": timestamp,
            "account_id": self._account_id,
        }

    def _add(self, builder: RecordBuilder, topic: Topic, symbol: str, value: Value, at_ms: int) -> None:
        builder.add(topic, f"{self._account_id}:{symbol}".encode(), value, at_ms)


def _is_new(remembered: dict[str, None], identity: str) -> bool:
    if identity in remembered:
        return False
    remembered[identity] = None
    if len(remembered) > IDENTITIES_REMEMBERED:
        del remembered[next(iter(remembered))]
    return True


def _is_open(state: AccountState, key: str) -> bool:
    return Decimal(str(state.positions[key]["size"])) != 0


def _position(category: str, row: PositionRow) -> PositionFields:
    return {
        "category": category,
        "symbol": row.symbol,
        "position_index": row.positionIdx,
        "side": None if row.side in FLAT_SIDES else row.side,
        "size": row.size,
        # The field is entryPrice in the stream, avgPrice in REST (Position, Get Position Info).
        "entry_price": row.entryPrice or row.avgPrice or None,
        "mark_price": row.markPrice or None,
        "leverage": row.leverage or None,
        "position_value": row.positionValue or None,
        "liquidation_price": row.liqPrice or None,
        "break_even_price": row.breakEvenPrice or None,
        "take_profit": row.takeProfit or None,
        "stop_loss": row.stopLoss or None,
        "unrealised_pnl": row.unrealisedPnl or None,
        "current_realised_pnl": row.curRealisedPnl or None,
        "cumulative_realised_pnl": row.cumRealisedPnl or None,
        "status": row.positionStatus or None,
        "updated_at": iso(int(row.updatedTime)),
        "sequence": row.seq,
    }


_NULL_WHEN_FLAT = (
    "side",
    "entry_price",
    "mark_price",
    "position_value",
    "liquidation_price",
    "break_even_price",
    "take_profit",
    "stop_loss",
    "unrealised_pnl",
    "current_realised_pnl",
    "cumulative_realised_pnl",
)


def _flattened(position: PositionFields, at_ms: int) -> PositionFields:
    """Return the flat form of a position missing from a complete list; its PnL is unknown."""
    return {**position, **dict.fromkeys(_NULL_WHEN_FLAT), "size": "0", "updated_at": iso(at_ms)}


def _without_time(position: PositionFields) -> PositionFields:
    return {name: value for name, value in position.items() if name not in ("updated_at", "sequence")}


def _pnl_change(before: PositionFields, after: PositionFields) -> str | None:
    values = [position[name] for position in (after, before) for name in ("cumulative_realised_pnl", "unrealised_pnl")]
    if any(value is None for value in values):
        return None
    numbers = [Decimal(str(value)) for value in values]
    return format(numbers[0] + numbers[1] - numbers[2] - numbers[3], "f")


def _order(category: str, row: OrderRow) -> dict[str, object]:
    return {
        "category": category,
        "symbol": row.symbol,
        "order_id": row.orderId,
        "order_link_id": row.orderLinkId or None,
        "status": row.orderStatus,
        "side": row.side or None,
        "order_type": row.orderType or None,
        "price": row.price or None,
        "quantity": row.qty,
        "filled_quantity": row.cumExecQty or None,
        "remaining_quantity": row.leavesQty or None,
        "average_price": row.avgPrice or None,
        "filled_value": row.cumExecValue or None,
        "trigger_price": row.triggerPrice or None,
        "time_in_force": row.timeInForce or None,
        "reduce_only": row.reduceOnly,
        "position_index": row.positionIdx,
        "cancel_type": row.cancelType or None,
        "reject_reason": row.rejectReason or None,
        "created_at": iso(int(row.createdTime)),
    }


def _execution(category: str, row: ExecutionRow) -> dict[str, object]:
    return {
        "category": category,
        "symbol": row.symbol,
        "exec_id": row.execId,
        "order_id": row.orderId,
        "order_link_id": row.orderLinkId or None,
        "side": row.side,
        "price": row.execPrice,
        "size": row.execQty,
        "fee": row.execFee or None,
        "fee_currency": row.feeCurrency or None,
        "fee_rate": row.feeRate or None,
        "value": row.execValue or None,
        "exec_type": row.execType or None,
        "is_maker": row.isMaker,
        "closed_size": row.closedSize or None,
        "exec_pnl": row.execPnl or None,
        "mark_price": row.markPrice or None,
        "remaining_quantity": row.leavesQty or None,
        "sequence": row.seq,
    }
