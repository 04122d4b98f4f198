"""
Proof of the account: the records in Kafka against what happened on the scripted exchange.

Each fill and each state of an order that was written to a connection which stayed open is in Kafka once. Any other one
is there too, or lies in a recorded gap that is not marked filled. Positions change step by step and never back, and in
the end the merged view equals the exchange's books.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest_tests.processes.account import view_of_books, view_of_update
from hedgelock_ingest_tests.processes.evidence import Outage, PublishedRecord, RecordedGap, Sent, gap_of, in_ms
from hedgelock_ingest_tests.processes.proof import first_known_ms, was_cut_unread
from hedgelock_ingest_tests.simulation.exchange import PRIVATE, Exchange

BEGINNING_MS = 250
"""By how much two lines that open together may differ in their first frames."""

ANSWER_MS = 5_000
"""How long the requests of one answer of REST may take together."""

type Records = Mapping[Topic, Sequence[PublishedRecord]]
type Identity = Hashable
type OrderState = tuple[str, int, str, str]
"""Order id, time of the change in milliseconds, status, filled quantity."""


def check_account(
    exchange: Exchange,
    records: Records,
    outages: Sequence[Outage],
    *,
    unread_ms: int = 1_000,
    is_settled: bool = True,
) -> list[str]:
    """
    Judge all records of the account.

    Args:
        exchange: The exchange of the run.
        records: All records of Kafka, each partition in its order.
        outages: Times in which connections may have been cut.
        unread_ms: How long before the end of a connection lost frames may have been written.
        is_settled: Whether all faults had ended and REST has answered since the account last changed.

    Returns:
        Findings that break a guarantee, as sentences.
    """
    judge = _Judge(exchange, records, outages, unread_ms)
    judge.check_executions()
    judge.check_orders()
    judge.check_positions()
    judge.check_raw()
    judge.check_states()
    judge.check_views()
    if is_settled:
        judge.check_last_view()
    return judge.findings


class _Judge:
    def __init__(self, exchange: Exchange, records: Records, outages: Sequence[Outage], unread_ms: int) -> None:
        self.findings: list[str] = []
        self._exchange = exchange
        self._records = records
        self._outages = outages
        self._unread_ms = unread_ms
        self._sent = exchange.sent_to_account()

    def check_executions(self) -> None:
        rows = self._rows("execution")
        sent = {row["execId"]: row for row in rows}
        for record in self._records[Topic.EXECUTIONS]:
            value, row = record.value, sent.get(record.value["exec_id"])
            if row is not None and (value["price"], value["size"], value["fee"], value["sequence"]) != (
                row["execPrice"],
                row["execQty"],
                row["execFee"],
                row["seq"],
            ):
                self._find(f"{record}: {value}, the exchange sent {row}")
        found = [record.value["exec_id"] for record in self._records[Topic.EXECUTIONS]]
        self._check_delivery("execution", [row["execId"] for row in rows], found, complete_when_healed="yes")

    def check_orders(self) -> None:
        rows = self._rows("order")
        names = [_order_of_row(row) for row in rows]
        found = [_order_of_record(record.value) for record in self._records[Topic.ORDER_UPDATES]]
        missing = self._check_delivery("order", names, found)
        last_in_gap: dict[tuple[int, str], OrderState] = {}
        gaps = [gap for gap in self._gaps_of("order") if gap.record.value["healed_by"] == "rest"]
        for number, gap in enumerate(gaps):
            for row, name in zip(rows, names, strict=True):
                if int(row["updatedTime"]) <= gap.to_ms:
                    last_in_gap[number, row["orderId"]] = name
        # An answer comes after the end of the gap that it fills, and shows orders as they stood some moments after its
        # first request.
        for (number, order_id), name in last_in_gap.items():
            end_ms = gaps[number].to_ms
            answered_ms = int(gaps[number].record.headers["received-ns"]) // 1_000_000 + ANSWER_MS
            is_passed = any(each == order_id and end_ms < at_ms <= answered_ms for each, at_ms, *_ in found)
            if name in missing and not is_passed and gaps[number].holds(missing[name].sent_ms, None):
                self._find(f"order: {name} was the last state before {gaps[number].record} ended, and is not in Kafka")

    def check_positions(self) -> None:
        sent = {(row["symbol"], int(row["updatedTime"]), row["seq"]): row for row in self._rows("position")}
        for symbol, steps in self._exchange.account.steps.positions.items():
            for step in steps:
                sent[symbol, int(step.row["updatedTime"]), step.row["seq"]] = step.row
        by_symbol: dict[str, list[PublishedRecord]] = {}
        for record in self._records[Topic.POSITION_CHANGES]:
            by_symbol.setdefault(record.value["symbol"], []).append(record)
        for symbol, records in by_symbol.items():
            for earlier, later in pairwise(records):
                if later.value["before"] != earlier.value["after"]:
                    self._find(f"position: {later} does not begin where {earlier} ended")
                if later.value["after"]["sequence"] < earlier.value["after"]["sequence"]:
                    self._find(f"position: {later} goes back behind {earlier}")
            for record in records:
                self._check_figures(record, symbol, sent)

    def check_raw(self) -> None:
        """Check that each frame of the wallet is in Kafka once at most."""
        sent = Counter(int(frame["creationTime"]) for frame in self._exchange.logs[PRIVATE, "wallet"].frames())
        found = Counter(
            in_ms(record.value["timestamp"])
            for record in self._records[Topic.ACCOUNT_RAW]
            if record.value["origin"] == "websocket:wallet"
        )
        for at_ms, count in (found - sent).items():
            self._find(f"wallet: {count} more records of {at_ms} than frames")

    def check_states(self) -> None:
        """Check that what was sent while no line carried a state lies in a recorded gap."""
        for topic in ("wallet", "position"):
            gaps, (begin_ms, end_ms) = self._gaps_of(topic), self._exchange.account_span(topic)
            for event in self._sent[PRIVATE, topic]:
                is_ours = begin_ms < event.sent_ms <= end_ms and not event.connections
                if is_ours and not any(gap.from_ms <= event.sent_ms <= gap.to_ms for gap in gaps):
                    self._find(f"{topic}: a frame of {event.sent_ms} was sent on no line, and lies in no recorded gap")

    def check_views(self) -> None:
        """Check that no view shows an older position, or an older time of a part, than an earlier view."""
        reached: dict[str, int] = {}
        shown: dict[str, Any] = {}
        seen: dict[str, int] = {}
        for record in self._records[Topic.ACCOUNT_UPDATES]:
            for part, at in record.value["seen"].items():
                if in_ms(at) < seen.get(part, 0):
                    self._find(f"view: {record} has seen {part} before a view before it")
                seen[part] = in_ms(at)
            positions = {one["symbol"]: one for one in record.value["positions"]}
            for symbol, one in positions.items():
                if one["sequence"] < reached.get(symbol, one["sequence"]):
                    self._find(f"view: {record} shows an older {symbol} than a view before it")
                reached[symbol] = one["sequence"]
            for symbol, one in shown.items():
                if symbol not in positions and not self._was_flat(symbol, one, in_ms(record.value["timestamp"])):
                    self._find(f"view: {record} has lost {symbol}, which was not closed")
            shown = positions

    def check_last_view(self) -> None:
        updates = self._records[Topic.ACCOUNT_UPDATES]
        if not updates:
            self._find("view: there is none")
            return
        ours, theirs = view_of_update(updates[-1].value), view_of_books(self._exchange.account.books())
        # A frame names a coin with a zero balance, a list of REST does not.
        ours["balances"] = {name: amount for name, amount in ours["balances"].items() if amount != "0"}
        for part in theirs:
            if ours[part] != theirs[part]:
                self._find(f"view: the last one has {part} {ours[part]}, the exchange {theirs[part]}")

    def _check_figures(
        self, record: PublishedRecord, symbol: str, sent: Mapping[tuple[str, int, int], Mapping[str, Any]]
    ) -> None:
        after = record.value["after"]
        row = sent.get((symbol, in_ms(after["updated_at"]), after["sequence"]))
        if row is None:
            is_flat = after["size"] == "0" and record.value["before"] is not None
            if not (is_flat and self._was_flat(symbol, record.value["before"], in_ms(after["updated_at"]))):
                self._find(f"position: {record} is at {after['updated_at']}, and nothing happened then")
            return
        theirs = (row["size"], row["cumRealisedPnl"], row["positionValue"])
        if (after["size"], after["cumulative_realised_pnl"], after["position_value"]) != theirs:
            self._find(f"position: {record} has {after}, the exchange {theirs}")

    def _was_flat(self, symbol: str, before: Mapping[str, Any], until_ms: int) -> bool:
        """Return whether a position was closed after a state of it."""
        steps = self._exchange.account.steps.positions[symbol]
        return any(step.row["size"] == "0" and in_ms(before["updated_at"]) <= step.at_ms <= until_ms for step in steps)

    def _check_delivery(
        self, topic: str, sent: Sequence[Identity], found: Sequence[Identity], *, complete_when_healed: str = ""
    ) -> dict[Identity, Sent]:
        """Check that each identity is in Kafka once, or missing for a valid reason; return the missing ones."""
        known = set(sent)
        for identity, count in Counter(found).items():
            if identity not in known:
                self._find(f"{topic}: {identity} is in Kafka, and never happened")
            elif count > 1:
                self._find(f"{topic}: {identity} is {count} times in Kafka")
        in_kafka, gaps = set(found), self._gaps_of(topic)
        missing: dict[Identity, Sent] = {}
        ours = self._ours(topic, sent, in_kafka)
        read = [event for identity, event in ours if identity in in_kafka and event.connections]
        known_ms = first_known_ms(gaps, read)
        for identity, event in ours:
            if identity in in_kafka:
                continue
            if event.sent_ms < known_ms and was_cut_unread(event, self._outages, self._unread_ms):
                continue
            missing[identity] = event
            around = [gap for gap in gaps if gap.holds(event.sent_ms, None)]
            if not around:
                self._find(f"{topic}: {identity} sent at {event.sent_ms} is neither in Kafka nor in a recorded gap")
            elif all(gap.record.value["healed"] == complete_when_healed for gap in around):
                self._find(f"{topic}: {identity} sent at {event.sent_ms} is missing in a gap that is marked filled")
            self._check_connections(topic, identity, event)
        return missing

    def _ours(self, topic: str, sent: Sequence[Identity], in_kafka: set[Identity]) -> Sequence[tuple[Identity, Sent]]:
        """Return what was sent from a process's first subscription to the last, with the events."""
        events = [event for event in self._sent[PRIVATE, topic] for _ in self._names_of(topic, event)]
        begin_ms, end_ms = self._exchange.account_span(topic)
        pairs = zip(sent, events, strict=True)
        ours = [(identity, event) for identity, event in pairs if begin_ms <= event.sent_ms <= end_ms]
        # Of two lines that open together the one that subscribed first may be read last.
        first_ms = next((event.sent_ms for identity, event in ours if identity in in_kafka), 0)
        first_ms = first_ms if first_ms - begin_ms < BEGINNING_MS else 0
        return [(identity, event) for identity, event in ours if event.sent_ms >= first_ms]

    def _names_of(self, topic: str, event: Sent) -> Sequence[Any]:
        return event.identities if topic == "execution" else event.identities[:1]

    def _check_connections(self, topic: str, identity: Identity, event: Sent) -> None:
        for connection in event.connections:
            closed_ms = connection.closed_ms
            if closed_ms is None or not any(one.begin_ms - 50 <= closed_ms <= one.end_ms for one in self._outages):
                self._find(f"{topic}: {identity} was written to a connection that was not cut, and is not in Kafka")
            elif event.sent_ms < closed_ms - self._unread_ms:
                early_ms = closed_ms - event.sent_ms
                self._find(f"{topic}: {identity}, written {early_ms} ms before the cut, is not in Kafka")

    def _gaps_of(self, topic: str) -> list[RecordedGap]:
        return [gap_of(one) for one in self._records[Topic.INGEST_GAPS] if one.key == f"{PRIVATE}:{topic}"]

    def _rows(self, topic: str) -> list[dict[str, Any]]:
        return [row for frame in self._exchange.logs[PRIVATE, topic].frames() for row in frame["data"]]

    def _find(self, text: str) -> None:
        self.findings.append(text)


def _order_of_row(row: Mapping[str, Any]) -> OrderState:
    return row["orderId"], int(row["updatedTime"]), row["orderStatus"], row["cumExecQty"]


def _order_of_record(value: Mapping[str, Any]) -> OrderState:
    return value["order_id"], in_ms(value["timestamp"]), value["status"], value["filled_quantity"]
