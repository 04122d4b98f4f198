"""Trades and executions that REST tells of, one by one, and the records of those that are chosen."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from hedgelock_ingest.errors import FrameError
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.frames import Frame
from hedgelock_ingest.protocol.private_messages import ExecutionRow
from hedgelock_ingest.protocol.rest_messages import ExecutionsResult, Part, RestAnswer, RestTradeRow, TradesResult
from hedgelock_ingest.translate.account import Account
from hedgelock_ingest.translate.account_state import AccountState
from hedgelock_ingest.translate.gap_fill import add_trade
from hedgelock_ingest.translate.record import Record
from hedgelock_ingest.translate.record_builder import RecordBuilder

TOPIC_BY_PART = {Part.TRADES: Topic.MARKET_TRADES, Part.EXECUTIONS: Topic.EXECUTIONS}

_trades = msgspec.json.Decoder(TradesResult)
_executions = msgspec.json.Decoder(ExecutionsResult)


class Name(NamedTuple):
    """What a trade or execution is known by in its topic."""

    key: bytes
    identity: str


class Event(NamedTuple):
    """One trade or execution, as REST told of it."""

    name: Name
    at_ms: int
    category: str
    row: RestTradeRow | ExecutionRow


def events_in(answer: RestAnswer, account_id: str) -> list[Event]:
    """
    List what an answer about trades or executions tells of, each once, oldest first.

    Raises:
        FrameError: Something in it is not what it should be.
    """
    try:
        found = [
            event
            for category, result in answer.results.items()
            for event in _events(answer.part, category, account_id, result)
        ]
    except msgspec.DecodeError as error:
        raise FrameError(str(error)[:300]) from error
    by_name = {event.name: event for event in found}
    return sorted(by_name.values(), key=lambda event: (event.at_ms, int(event.row.seq or 0), event.name))


def _events(part: Part, category: str, account_id: str, result: msgspec.Raw) -> Iterator[Event]:
    if part is Part.TRADES:
        for trade in _trades.decode(result).list:
            name = Name(f"{category}:{trade.symbol}".encode(), trade.execId)
            yield Event(name, int(trade.time), category, trade)
    else:
        for fill in _executions.decode(result).list:
            name = Name(f"{account_id}:{category}:{fill.symbol}".encode(), fill.execId)
            yield Event(name, int(fill.execTime), category, fill)


class _Named(msgspec.Struct):
    trade_id: str | None = None
    exec_id: str | None = None


_named = msgspec.json.Decoder(_Named)


def identity_in(value: bytes) -> str | None:
    """Read which trade or execution a published record is about; None where it is about neither."""
    try:
        named = _named.decode(value)
    except msgspec.DecodeError:
        return None
    return named.trade_id or named.exec_id


def records_of(
    events: Iterable[Event], position: int, frame: Frame, *, account_id: str, answered_ms: int
) -> list[Record]:
    """
    Make the records of events that one answer told of, in their order.

    Args:
        events: Each once.
        position: Names the records, with the journal id that they are published under.
        frame: Stands for the answer: when it was read, and its trace.
        account_id: Whose executions they are.
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
