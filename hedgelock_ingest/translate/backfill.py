"""Trades and executions in REST answers, and the records of those selected for publication."""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.frames import Frame
from hedgelock_ingest.protocol.messages import DECODE_ERRORS
from hedgelock_ingest.protocol.private_messages import ExecutionRow
from hedgelock_ingest.protocol.rest_messages import Part, RestAnswer, RestTradeRow
from hedgelock_ingest.protocol.rest_rows import UndecodableRow, rows_in
from hedgelock_ingest.translate.account import Account
from hedgelock_ingest.translate.gap_fill_records import add_trade
from hedgelock_ingest.translate.record import Record
from hedgelock_ingest.translate.record_builder import RecordBuilder
from hedgelock_ingest.translate.state import AccountState

TOPIC_BY_PART = {Part.TRADES: Topic.MARKET_TRADES, Part.EXECUTIONS: Topic.EXECUTIONS}


class EventId(NamedTuple):
    """Identifies a trade or execution in its topic."""

    key: bytes
    identity: str


class RestEvent(NamedTuple):
    """One trade or execution, as REST returned it."""

    event_id: EventId
    at_ms: int
    category: str
    row: RestTradeRow | ExecutionRow


def events_in(answer: RestAnswer, account_id: str) -> tuple[list[RestEvent], list[UndecodableRow]]:
    """
    List the trades or executions of an answer, each once, oldest first; and the rows that cannot be decoded.

    Raises:
        FrameError: A result is not a list.
    """
    rows = rows_in(answer)
    found = (_event(category, row, account_id) for category, row in rows.decoded)
    by_id = {event.event_id: event for event in found}
    events = sorted(by_id.values(), key=lambda event: (event.at_ms, int(event.row.seq or 0), event.event_id))
    return events, rows.undecodable


def _event(category: str, row: RestTradeRow | ExecutionRow, account_id: str) -> RestEvent:
    if isinstance(row, RestTradeRow):
        return RestEvent(EventId(f"{category}:{row.symbol}".encode(), row.execId), int(row.time), category, row)
    event_id = EventId(f"{account_id}:{category}:{row.symbol}".encode(), row.execId)
    return RestEvent(event_id, int(row.execTime), category, row)


class _PublishedId(msgspec.Struct):
    trade_id: str | None = None
    exec_id: str | None = None


_published_id = msgspec.json.Decoder(_PublishedId)


def identity_in(value: bytes) -> str | None:
    """Read the id of the trade or execution in a published record; None if it holds neither."""
    try:
        published = _published_id.decode(value)
    except DECODE_ERRORS:
        return None
    return published.trade_id or published.exec_id


def records_of(
    events: Iterable[RestEvent], position: int, frame: Frame, *, account_id: str, answered_ms: int
) -> list[Record]:
    """
    Build the records of events from one answer, in their order.

    Args:
        events: Without duplicates.
        position: Identifies the records, with the journal id that they are published under.
        frame: Carries the time when the answer was read, and its trace.
        account_id: The account of the executions.
        answered_ms: Bybit's time of the answer.
    """
    builder = RecordBuilder()
    builder.begin(position, frame)
    fills: list[tuple[str, ExecutionRow]] = []
    for event in events:
        if isinstance(event.row, RestTradeRow):
            add_trade(builder, event.category, event.row)
        else:
            fills.append((event.category, event.row))
    Account(account_id, AccountState(), Counter()).take_executions(builder, fills, answered_ms, healed=True)
    return builder.records
