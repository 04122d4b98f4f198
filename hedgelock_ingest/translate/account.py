"""The account: translate private frames and REST answers into changes, the merged view, and `account_raw`."""

from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping
from decimal import Decimal
from typing import NamedTuple

import msgspec

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.exchange_time import TOLERANCE_MS
from hedgelock_ingest.protocol.private_messages import (
    ORDER_ENDS,
    ExecutionMessage,
    ExecutionRow,
    OrderMessage,
    OrderRow,
    PositionMessage,
    PositionRow,
    PrivateMessage,
    WalletAccount,
    WalletCoin,
    WalletMessage,
    order_identity,
    position_key,
)
from hedgelock_ingest.translate.absence import REST_LAG_MS, is_gone
from hedgelock_ingest.translate.account_values import balances_detail, detail_of, margin_of, raw_parts
from hedgelock_ingest.translate.formatting import iso
from hedgelock_ingest.translate.orders import published_execution, published_order
from hedgelock_ingest.translate.positions import differs, flattened, is_open, pnl_change, published_position
from hedgelock_ingest.translate.record_builder import RecordBuilder, Value
from hedgelock_ingest.translate.state import IDENTITIES_REMEMBERED, AccountState, Coin, Figures, PositionFields

PARTS = ("wallet", "positions", "collateral", "loans")
UNIFIED = "UNIFIED"
"""The account whose balances are published as `balances`. Source: Bybit V5, Enums, `accountType`."""

type Covers = Callable[[str, str], bool]
"""Whether a list would hold a row about a category and symbol if there were one."""


class Origin(NamedTuple):
    """
    Where data of the account comes from: `name` such as `rest:wallet`, and the `source` of its records.

    What REST answers may be older than frames that were received before it; frames are in order.
    """

    name: str
    source: str
    is_rest: bool


def _stream(channel: str) -> Origin:
    return Origin(f"websocket:{channel}", "websocket", is_rest=False)


class Account:
    """
    Applies frames and answers about one account to its state, and adds the resulting records.

    While it `keeps_all`, no order or execution is forgotten: answers about a gap repeat what earlier ones held.
    """

    def __init__(self, account_id: str, state: AccountState, counts: Counter[str]) -> None:
        """Continue from `state`, which is changed in place; `counts` counts rows of frames that give no record."""
        self.state = state
        self._counts = counts
        self._account_id = account_id
        self.keeps_all = False
        self._orders = dict.fromkeys(state.orders)
        self._executions = dict.fromkeys(state.executions)

    def save(self) -> AccountState:
        """Return the state, including the remembered orders and executions."""
        self.state.orders, self.state.executions = list(self._orders), list(self._executions)
        return self.state

    def take(self, builder: RecordBuilder, message: PrivateMessage, at_ms: int) -> None:
        """Apply one frame of a private line; `at_ms` is its time, or an estimate if that is wrong."""
        match message:
            case WalletMessage():
                self.take_wallet(builder, message.data, at_ms, _stream("wallet"))
            case PositionMessage():
                rows = [(row.category, row) for row in message.data]
                self.take_positions(builder, rows, at_ms, _stream("position"))
            case OrderMessage():
                self.take_orders(builder, [(row.category, row) for row in message.data], message.ts, healed=False)
            case ExecutionMessage():
                self.take_executions(builder, [(row.category, row) for row in message.data], message.ts, healed=False)

    def take_wallet(
        self,
        builder: RecordBuilder,
        accounts: Iterable[WalletAccount],
        at_ms: int,
        origin: Origin,
        *,
        is_complete: bool = False,
        transferable: Mapping[str, str] | None = None,
    ) -> None:
        """
        Merge balances, coin by coin and account type by account type.

        A list from REST changes only coins of which nothing later is known. Of the unified account, coins that a
        complete list lacks have become zero once a second, later list lacks them, too.

        Args:
            builder: Receives the records.
            accounts: Their balances.
            at_ms: Bybit's time of the frame or list.
            origin: Where they come from.
            is_complete: Whether they are all balances of the unified account.
            transferable: The available balances that REST reports beside them.
        """
        coins_by_type: dict[str, dict[str, Coin]] = {UNIFIED: {}} if is_complete else {}
        margin: Figures | None = None
        for account in accounts:
            coins = {each.coin: _coin(each, at_ms, is_rest=origin.is_rest) for each in account.coin}
            coins_by_type[account.accountType] = coins_by_type.get(account.accountType, {}) | coins
            if account.accountType == UNIFIED:
                margin = margin_of(account)
        before = dict(self.state.coins)
        for account_type, coins in coins_by_type.items():
            self._merge_coins(account_type, coins, origin)
        self._merge_available(transferable or {}, at_ms)
        if not coins_by_type:  # none of its accounts can be decoded
            return
        if margin is not None:
            self._take_margin(margin, at_ms, origin)
        if is_complete:
            self._remove_coins(coins_by_type[UNIFIED], at_ms)
        is_late = origin.is_rest and at_ms < self.state.seen_ms.get("wallet", 0)
        if UNIFIED in coins_by_type:
            self.state.seen_ms["wallet"] = max(at_ms, self.state.seen_ms.get("wallet", 0))
        self.add_raw(builder, at_ms, origin)
        if UNIFIED in coins_by_type and (not is_late or _balances(before) != _balances(self.state.coins)):
            self.add_update(builder, at_ms, origin)

    def take_positions(
        self,
        builder: RecordBuilder,
        rows: Iterable[tuple[str, PositionRow]],
        at_ms: int,
        origin: Origin,
        *,
        covers: Covers | None = None,
        healed: bool = False,
    ) -> None:
        """
        Record each position that changed.

        A position that a complete list lacks is flat once a second, later list lacks it, too.

        Args:
            builder: Receives the records.
            rows: With their categories; rows without content are passed over.
            at_ms: Bybit's time of the frame or list.
            origin: Where they come from.
            covers: What a complete list would hold; None for frames and other lists.
            healed: Whether they fill a gap.
        """
        positions: dict[str, tuple[PositionRow, PositionFields]] = {}
        for category, row in rows:
            if not row.is_blank:
                positions[position_key(category, row)] = row, published_position(category, row)
            elif not origin.is_rest:
                self._counts["positions_blank"] += 1
        has_changed = False
        for key, (row, position) in positions.items():
            self.state.positions_absent_ms.pop(key, None)
            if self._is_news(key, row, position, at_ms, origin) and self._change(
                builder, key, position, at_ms, origin, healed=healed
            ):
                has_changed = True
            elif not origin.is_rest:
                self._counts["positions_known"] += 1
            self._note_repetition(key, row, position, at_ms, origin)
        if covers is not None:
            for key in self._gone_positions(positions, at_ms, covers):
                position = flattened(self.state.positions[key], at_ms)
                has_changed |= self._change(builder, key, position, at_ms, origin, healed=healed)
        is_late = origin.is_rest and at_ms < self.state.seen_ms.get("positions", 0)
        self.state.seen_ms["positions"] = max(at_ms, self.state.seen_ms.get("positions", 0))
        if has_changed or covers is not None:
            self.add_raw(builder, at_ms, origin, reported_positions=positions)
        if has_changed or (covers is not None and not is_late):
            self.add_update(builder, at_ms, origin)

    def take_orders(
        self, builder: RecordBuilder, rows: Iterable[tuple[str, OrderRow]], at_ms: int, *, healed: bool
    ) -> None:
        """Record each order state that was not recorded before; from REST only if no later state of the order was."""
        latest = self._latest_order_states() if healed else {}
        for category, row in rows:
            is_late = healed and _precedes(row, latest.get(row.orderId, _NEVER))
            if not is_late and self._is_new(self._orders, order_identity(row)):
                head = self._head(builder, iso(int(row.updatedTime)), _source(healed=healed))
                value = head | published_order(category, row) | {"healed": healed}
                self._add(builder, Topic.ORDER_UPDATES, f"{category}:{row.symbol}", value, at_ms)
            elif not healed:
                self._counts["orders_known"] += 1

    def take_executions(
        self, builder: RecordBuilder, rows: Iterable[tuple[str, ExecutionRow]], at_ms: int, *, healed: bool
    ) -> None:
        """Record each execution that was not recorded before."""
        for category, row in rows:
            if self._is_new(self._executions, row.execId):
                head = self._head(builder, iso(int(row.execTime)), _source(healed=healed))
                value = head | published_execution(category, row) | {"healed": healed}
                self._add(builder, Topic.EXECUTIONS, f"{category}:{row.symbol}", value, at_ms)
            elif not healed:
                self._counts["executions_known"] += 1

    def add_raw(
        self, builder: RecordBuilder, at_ms: int, origin: Origin, reported_positions: Container[str] = ()
    ) -> None:
        """Add a record to `account_raw`: all parts as last known, those that the origin has changed included."""
        value = {
            **self._head(builder, iso(at_ms), "collector"),
            **raw_parts(self.state, reported_positions),
            "origin": origin.name,
        }
        builder.add(Topic.ACCOUNT_RAW, self._account_id.encode(), value, at_ms)

    def add_update(self, builder: RecordBuilder, at_ms: int, origin: Origin) -> None:
        """Add the merged view, once every part was seen at least once."""
        state = self.state
        if state.loan is None or any(part not in state.seen_ms for part in PARTS):
            return
        value = {
            **self._head(builder, iso(at_ms), origin.source),
            "balances": _balances(state.coins),
            **state.loan,
            "positions": [position for position in state.positions.values() if is_open(position)],
            "seen": {part: iso(state.seen_ms[part]) for part in PARTS},
            "margin": state.margin,
            "balances_detail": balances_detail(state.coins),
        }
        builder.add(Topic.ACCOUNT_UPDATES, self._account_id.encode(), value, at_ms)

    @property
    def missing_parts(self) -> list[str]:
        """List the parts that were never seen; until all were, no merged view is published."""
        return [part for part in PARTS if part not in self.state.seen_ms]

    def _take_margin(self, margin: Figures, at_ms: int, origin: Origin) -> None:
        state = self.state
        if not origin.is_rest:
            state.margin_streamed_ms = at_ms
        elif at_ms <= max(state.margin_ms, state.margin_streamed_ms + REST_LAG_MS):
            return
        state.margin, state.margin_ms = margin, at_ms

    def _merge_coins(self, account_type: str, coins: dict[str, Coin], origin: Origin) -> None:
        known = self.state.coins if account_type == UNIFIED else self.state.other_coins.setdefault(account_type, {})
        absent_ms = self.state.coins_absent_ms if account_type == UNIFIED else {}
        for name, coin in coins.items():
            # A frame is applied even if a REST answer has a later time: REST may lag behind the stream.
            before = known.get(name)
            known_ms = absent_ms.get(name, -REST_LAG_MS) + REST_LAG_MS if before is None else self._known_ms(before)
            if not origin.is_rest or coin.at_ms > known_ms:
                known[name] = _with_known(coin, before)
                absent_ms.pop(name, None)

    def _merge_available(self, transferable: Mapping[str, str], at_ms: int) -> None:
        """Note what REST reports as available; it is unknown to the stream, so frames make it no older."""
        for name, amount in transferable.items():
            coin = self.state.coins.get(name)
            if coin is not None and at_ms >= coin.available_ms:
                self.state.coins[name] = msgspec.structs.replace(coin, available=amount, available_ms=at_ms)

    def _remove_coins(self, listed: dict[str, Coin], list_ms: int) -> None:
        coins, absent_ms = self.state.coins, self.state.coins_absent_ms
        for name in [name for name in coins if name not in listed]:
            if is_gone(absent_ms, name, known_ms=self._known_ms(coins[name]), list_ms=list_ms):
                del coins[name]
                absent_ms[name] = list_ms  # an older list, which still has it, may arrive later

    def _known_ms(self, coin: Coin) -> int:
        """Return the time up to which no list can have news about a coin."""
        at_ms = coin.at_ms or self.state.seen_ms.get("wallet", 0)  # earlier versions kept one time for all coins
        return max(at_ms, coin.streamed_ms + REST_LAG_MS if coin.streamed_ms else 0)

    def _is_news(self, key: str, row: PositionRow, position: PositionFields, at_ms: int, origin: Origin) -> bool:
        """Return whether a row has news about its position; note the time at which it was known."""
        state, as_of = self.state, (int(row.updatedTime), row.seq)
        known = state.positions_as_of.get(key, (-1, -2))
        if as_of < known and row.seq <= known[1]:
            return False
        known_ms = self._position_ms(key)
        state.positions_as_of[key] = as_of
        # Of the same time and sequence: frames are in order, a list counts if it is later than what is known.
        is_later = not origin.is_rest or at_ms > self._settled_ms(key)
        state.positions_seen_ms[key] = max(at_ms, known_ms)
        if not origin.is_rest:
            state.positions_streamed_ms[key] = at_ms
        if as_of > known or key not in state.positions:
            return True
        return is_later and differs(state.positions[key], position, is_newer=False)

    def _note_repetition(
        self, key: str, row: PositionRow, position: PositionFields, at_ms: int, origin: Origin
    ) -> None:
        """Keep an open position as it was last repeated: with its present mark price, although that is no change."""
        state, known = self.state, self.state.positions.get(key)
        is_latest = (int(row.updatedTime), row.seq) == state.positions_as_of.get(key)
        is_late = origin.is_rest and at_ms < self._position_ms(key)
        if known is None or not is_open(known):
            state.positions_repeated.pop(key, None)
        elif known is position or (is_latest and not is_late):
            state.positions_repeated[key] = position

    def _position_ms(self, key: str) -> int:
        """Return the latest time for which the position is known."""
        seen_ms = self.state.positions_seen_ms.get(key, 0)
        updated_ms, _ = self.state.positions_as_of.get(key, (0, 0))
        return seen_ms if updated_ms > seen_ms + TOLERANCE_MS else max(seen_ms, updated_ms)

    def _settled_ms(self, key: str) -> int:
        """Return the time up to which no list can have news about a position."""
        streamed_ms = self.state.positions_streamed_ms.get(key)
        return max(self._position_ms(key), 0 if streamed_ms is None else streamed_ms + REST_LAG_MS)

    def _gone_positions(self, listed: Container[str], list_ms: int, covers: Covers) -> list[str]:
        """List the open positions that a list lacks, as did an earlier one."""
        gone = []
        for key, position in self.state.positions.items():
            is_lacking = key not in listed and is_open(position)
            if not is_lacking or not covers(str(position["category"]), str(position["symbol"])):
                continue
            known_ms = self._settled_ms(key)
            if is_gone(self.state.positions_absent_ms, key, known_ms=known_ms, list_ms=list_ms):
                self.state.positions_repeated.pop(key, None)
                self.state.positions_seen_ms[key] = self.state.positions_streamed_ms[key] = list_ms
                gone.append(key)
        return gone

    def _change(
        self, builder: RecordBuilder, key: str, after: PositionFields, at_ms: int, origin: Origin, *, healed: bool
    ) -> bool:
        before = self.state.positions.get(key)
        if before is not None and not differs(before, after, is_newer=True):
            return False  # kept as it was published, so that the next change begins where the last one ended
        self.state.positions[key] = after
        if before is None and not is_open(after):
            return False  # flat when first seen: nothing changed
        value = {
            **self._head(builder, iso(at_ms), origin.source),
            "category": after["category"],
            "symbol": after["symbol"],
            "position_index": after["position_index"],
            "before": before,
            "after": after,
            "pnl_change": None if before is None else pnl_change(before, after),
            "healed": healed,
        }
        self._add(builder, Topic.POSITION_CHANGES, f"{after['category']}:{after['symbol']}", value, at_ms)
        return True

    def _is_new(self, remembered: dict[str, None], identity: str) -> bool:
        if identity in remembered:
            return False
        remembered[identity] = None
        while len(remembered) > IDENTITIES_REMEMBERED and not self.keeps_all:
            del remembered[next(iter(remembered))]
        return True

    def _latest_order_states(self) -> dict[str, tuple[Decimal, int]]:
        """Return how far each remembered order was last known to be filled, and when it changed."""
        latest: dict[str, tuple[Decimal, int]] = {}
        for identity in self._orders:
            order_id, updated, _, filled, *_ = identity.split("|")
            latest[order_id] = max(latest.get(order_id, _NEVER), _order_moment(updated, filled))
        return latest

    def _head(self, builder: RecordBuilder, timestamp: str, source: str) -> dict[str, object]:
        return {
            "schema_version": 1,
            "source": source,
            "trace_id": builder.trace_id,
            "timestamp": timestamp,
            "account_id": self._account_id,
        }

    def _add(self, builder: RecordBuilder, topic: Topic, symbol: str, value: Value, at_ms: int) -> None:
        builder.add(topic, f"{self._account_id}:{symbol}".encode(), value, at_ms)


_NEVER = (Decimal(-1), -1)


def _precedes(row: OrderRow, latest: tuple[Decimal, int]) -> bool:
    """Return whether a state of an order precedes the latest one; nothing follows its end, whatever the times are."""
    return row.orderStatus not in ORDER_ENDS and _order_moment(row.updatedTime, row.cumExecQty) < latest


def _order_moment(updated: str, filled: str) -> tuple[Decimal, int]:
    """Order the states of one order. Source: Bybit V5, WebSocket Order, `cumExecQty` and `updatedTime`."""
    return Decimal(filled or 0), int(updated)


def _source(*, healed: bool) -> str:
    return "rest-backfill" if healed else "websocket"


def _coin(row: WalletCoin, at_ms: int, *, is_rest: bool) -> Coin:
    available = row.availableToWithdraw or None
    available_ms, streamed_ms = 0 if available is None else at_ms, 0 if is_rest else at_ms
    return Coin(row.walletBalance, available, at_ms, available_ms, detail_of(row), streamed_ms)


def _with_known(coin: Coin, known: Coin | None) -> Coin:
    """Keep what is known besides: when a frame came, and what is available where Bybit does not report it."""
    if known is None:
        return coin
    streamed_ms = max(coin.streamed_ms, known.streamed_ms)
    if coin.available is not None:
        return msgspec.structs.replace(coin, streamed_ms=streamed_ms)
    return msgspec.structs.replace(
        coin, available=known.available, available_ms=known.available_ms, streamed_ms=streamed_ms
    )


def _balances(coins: dict[str, Coin]) -> dict[str, str]:
    return {name: coin.wallet for name, coin in coins.items()}
