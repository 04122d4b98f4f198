"""Trades and executions in REST answers, and the records of those selected for publication."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from hedgelock_ingest.errors import FrameError
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.frames import Frame
from hedgelock_ingest.protocol.private_messages import ExecutionRow
from hedgelock_ingest.protocol.rest_messages import ExecutionsResult, Part, RestAnswer, RestTradeRow, TradesResult
from hedgelock_ingest.translate.account import Account
from hedgelock_ingest.translate.gap_fill_records import add_trade
from hedgelock_ingest.translate.record import Record
from hedgelock_ingest.translate.record_builder import RecordBuilder
from hedgelock_ingest.translate.state import AccountState

TOPIC_BY_PART = {Part.TRADES: Topic.MARKET_TRADES, Part.EXECUTIONS: Topic.EXECUTIONS}

_trades = msgspec.json.Decoder(TradesResult)
_executions = msgspec.json.Decoder(ExecutionsResult)


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


def events_in(answer: RestAnswer, account_id: str) -> list[RestEvent]:
    """
    List the trades or executions of an answer, each once, oldest first.

    Raises:
        FrameError: A row is malformed.
    """
    try:
        found = [
            event
            for category, result in answer.results.items()
            for event in _events(answer.part, category, account_id, result)
        ]
    except msgspec.DecodeError as error:
        raise FrameError(str(error)[:300]) from error
    by_id = {event.event_id: event for event in found}
    return sorted(by_id.values(), key=lambda event: (event.at_ms, int(event.row.seq or 0), event.event_id))


def _events(part: Part, category: str, account_id: str, result: msgspec.Raw) -> Iterator[RestEvent]:
    if part is Part.TRADES:
        for trade in _trades.decode(result).list:
            event_id = EventId(f"{category}:{trade.symbol}".encode(), trade.execId)
            yield RestEvent(event_id, int(trade.time), category, trade)
    else:
        for fill in _executions.decode(result).list:
            event_id = EventId(f"{account_id}:{category}:{fill.symbol}".encode(), fill.execId)
            yield RestEvent(event_id, int(fill.execTime), category, fill)


class _PublishedId(msgspec.Struct):
    trade_id: str | None = None
    exec_id: str | None = None


_published_id = msgspec.json.Decoder(_PublishedId)


def identity_in(value: bytes) -> str | None:
    """Read the id of the trade or execution in a published record; None if it holds neither."""
    try:
        published = _published_id.decode(value)
    except msgspec.DecodeError:
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
    Account(account_id, AccountState()).take_executions(builder, fills, answered_ms, healed=True)
    return builder.records
