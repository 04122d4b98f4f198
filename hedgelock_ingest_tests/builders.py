"""Builders of complete, well-formed frames; a test states only the fields that matter to it."""

import json
from collections.abc import Sequence

import msgspec

from hedgelock_ingest.errors import FrameError
from hedgelock_ingest.protocol.frames import NOTE, Frame
from hedgelock_ingest.protocol.messages import Control, DataMessage, decode
from hedgelock_ingest.translate.state import Note, NoteKind

AT_MS = 1_715_748_762_000
"""Default time of all frames: 2024-05-15T04:52:42.000Z."""

TRACE = bytes.fromhex("2f1d4c7a9b3e4f60a1b2c3d4e5f60718")

type Side = Sequence[tuple[str, str]]

LINEAR_FIELDS = {
    "tickDirection": "PlusTick",
    "price24hPcnt": "-0.009772",
    "lastPrice": "61874.00",
    "prevPrice24h": "62484.60",
    "highPrice24h": "62752.90",
    "lowPrice24h": "61000.10",
    "prevPrice1h": "61901.80",
    "markPrice": "61875.25",
    "indexPrice": "61903.73",
    "openInterest": "58117.022",
    "openInterestValue": "3596005265.51",
    "turnover24h": "6073739017.8331",
    "volume24h": "98430.1050",
    "fundingIntervalHour": "8",
    "fundingCap": "0.005",
    "nextFundingTime": "1715760000000",
    "fundingRate": "0.00008055",
    "bid1Price": "61873.90",
    "bid1Size": "3.783",
    "ask1Price": "61874.00",
    "ask1Size": "16.278",
    "preOpenPrice": "",
    "preQty": "",
    "curPreListingPhase": "",
}
SPOT_FIELDS = {
    "lastPrice": "21109.77",
    "highPrice24h": "21426.99",
    "lowPrice24h": "20575",
    "prevPrice24h": "20704.93",
    "volume24h": "6780.866843",
    "turnover24h": "141946527.22907118",
    "price24hPcnt": "0.0196",
    "usdIndexPrice": "21120.2400136",
}


def in_json(value: object) -> bytes:
    """Encode JSON as Bybit does, without white space."""
    return json.dumps(value, separators=(",", ":")).encode()


def a_frame(
    raw: bytes, *, line: str = "linear-a", received_ns: int = AT_MS * 1_000_000 + 5_000_000, trace: bytes = TRACE
) -> Frame:
    """Build a journalled frame."""
    return Frame(line, received_ns, trace, raw)


def a_note(kind: NoteKind, *feeds: str, at_ms: int = AT_MS, reason: str = "") -> Frame:
    """Build a journalled note of our own."""
    return a_frame(msgspec.json.encode(Note(kind, at_ms, list(feeds), reason)), line=NOTE)


def a_snapshot(
    symbol: str = "BTCUSDT",
    update_id: int = 6,
    *,
    sequence: int | None = None,
    bids: Side = (("61873.90", "1.5"), ("61873.80", "2")),
    asks: Side = (("61874.00", "0.7"), ("61874.10", "3")),
    depth: int = 50,
    ts: int | None = None,
) -> bytes:
    """Build an order book's snapshot; with `depth=1` the only message type of level 1."""
    return _book("snapshot", symbol, update_id, sequence, bids, asks, depth, ts)


def a_delta(
    symbol: str = "BTCUSDT",
    update_id: int = 7,
    *,
    sequence: int | None = None,
    bids: Side = (("61873.90", "1.6"),),
    asks: Side = (),
    depth: int = 50,
    ts: int | None = None,
) -> bytes:
    """Build an order book's delta, by default the one that follows `a_snapshot()`."""
    return _book("delta", symbol, update_id, sequence, bids, asks, depth, ts)


def a_ticker(
    symbol: str = "BTCUSDT",
    *,
    kind: str = "snapshot",
    cs: int | None = 100,
    ts: int = AT_MS,
    fields: dict[str, object] | None = None,
) -> bytes:
    """Build a linear ticker; `fields` are added to `symbol`; by default all fields."""
    data = {"symbol": symbol} | (dict(LINEAR_FIELDS) if fields is None else fields)
    message: dict[str, object] = {"topic": f"tickers.{symbol}", "type": kind, "data": data}
    return in_json(message | ({} if cs is None else {"cs": cs}) | {"ts": ts})


def a_spot_ticker(
    symbol: str = "BTCUSDT", *, cs: int = 100, ts: int = AT_MS, fields: dict[str, object] | None = None
) -> bytes:
    """Build a spot ticker, which has no bid and ask."""
    data = {"symbol": symbol} | dict(SPOT_FIELDS) | (fields or {})
    return in_json({"topic": f"tickers.{symbol}", "ts": ts, "type": "snapshot", "cs": cs, "data": data})


def a_trade_row(trade_id: str = "t1", symbol: str = "BTCUSDT", **changes: object) -> dict[str, object]:
    """Build one row of a trade frame."""
    row = {"T": AT_MS - 3, "s": symbol, "S": "Buy", "v": "0.001", "p": "16578.50", "L": "PlusTick", "i": trade_id}
    return row | {"BT": False, "seq": 1_783_284_617} | changes


def a_trade(trade_id: str = "t1", *more_ids: str, symbol: str = "BTCUSDT", ts: int = AT_MS, **changes: object) -> bytes:
    """Build a frame of trades, one row for each id."""
    rows = [a_trade_row(each, symbol, **changes) for each in (trade_id, *more_ids)]
    return in_json({"topic": f"publicTrade.{symbol}", "type": "snapshot", "ts": ts, "data": rows})


def a_liquidation(symbol: str = "BTCUSDT", *, rows: int = 1, ts: int = AT_MS, **changes: object) -> bytes:
    """Build a frame of liquidations with equal rows."""
    row = {"T": AT_MS - 275, "s": symbol, "S": "Sell", "v": "20000", "p": "0.04499"} | changes
    return in_json({"topic": f"allLiquidation.{symbol}", "type": "snapshot", "ts": ts, "data": [row] * rows})


def _book(
    kind: str, symbol: str, update_id: int, sequence: int | None, bids: Side, asks: Side, depth: int, ts: int | None
) -> bytes:
    at_ms = AT_MS + 20 * update_id if ts is None else ts
    data = {"s": symbol, "b": bids, "a": asks, "u": update_id, "seq": sequence or 10 * update_id}
    message = {"topic": f"orderbook.{depth}.{symbol}", "type": kind, "ts": at_ms, "data": data, "cts": at_ms - 2}
    return in_json(message)


def messages_of(raws: Sequence[bytes]) -> list[DataMessage | None]:
    """Decode data frames as a connection does: None for a frame that cannot be decoded."""
    return [_message_of(raw) for raw in raws]


def _message_of(raw: bytes) -> DataMessage | None:
    try:
        message = decode(raw)
    except FrameError:
        return None
    assert not isinstance(message, Control), "control frames do not leave the connection"
    return message
