"""Fill gaps from REST answers, and record how far each was filled."""

import msgspec

from hedgelock_ingest.errors import FrameError
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.rest_messages import (
    PRIVATE_FEED_BY_PART,
    Part,
    Purpose,
    RestAnswer,
    RestTradeRow,
    TradesResult,
)
from hedgelock_ingest.translate.formatting import iso
from hedgelock_ingest.translate.gaps import STATES_BETWEEN, close_by_snapshot, close_gap, record_gap
from hedgelock_ingest.translate.record_builder import RecordBuilder
from hedgelock_ingest.translate.seen_ids import SeenIds
from hedgelock_ingest.translate.state import ChannelState

_trades = msgspec.json.Decoder(TradesResult)


def fill_trades(
    builder: RecordBuilder, answer: RestAnswer, channels: dict[str, ChannelState], seen_ids: SeenIds
) -> None:
    """
    Publish the trades of a feed that lie in its gaps, marked `healed`, and record these gaps.

    A gap is filled completely when REST reaches back to a trade from before it.

    Raises:
        FrameError: The answer is malformed, or not about the trades of a known feed.
    """
    category = answer.feed.partition(":")[0]
    channel = channels.get(answer.feed)
    if channel is None or category not in answer.results:
        raise FrameError("trades of an unknown feed")
    try:
        found = _trades.decode(answer.results[category]).list
    except msgspec.DecodeError as error:
        raise FrameError(str(error)[:300]) from error
    # The order of REST is not stated (Market, Get Public Recent Trading History).
    rows = sorted(found, key=lambda row: (int(row.time), int(row.seq or 0)))
    reach_ms = int(rows[0].time) if rows else None
    reaches_known = bool(rows) and rows[0].execId in seen_ids.known
    for row in rows:
        if row.execId not in seen_ids.known and any(
            gap.from_ms <= int(row.time) <= gap.to_ms for gap in channel.unfilled
        ):
            seen_ids.add(row.execId)
            add_trade(builder, category, row)
    for gap in channel.unfilled:
        if reaches_known or (reach_ms is not None and reach_ms < gap.from_ms):
            record_gap(builder, answer.feed, gap, healed="yes", healed_by="rest", missing=None)
        elif reach_ms is not None and reach_ms <= gap.to_ms:
            missing = f"trades before {iso(reach_ms)}"
            record_gap(builder, answer.feed, gap, healed="partly", healed_by="rest", missing=missing)
        else:
            record_gap(builder, answer.feed, gap, healed="no", healed_by=None, missing="everything")
    channel.unfilled = []
    if channel.gap_reason is None:
        _limit_last_ms(channel, answer.time_ms)


def give_up_gap_fill(builder: RecordBuilder, feed: str, channel: ChannelState, missing: str) -> None:
    """Record gaps that REST did not fill."""
    for gap in channel.unfilled:
        record_gap(builder, feed, gap, healed="no", healed_by=None, missing=missing)
    channel.unfilled = []


def close_private_gap(builder: RecordBuilder, answer: RestAnswer, channels: dict[str, ChannelState]) -> None:
    """
    Record the gap of a private channel that a REST answer closes: executions completely, other channels in part.

    A poll closes no gap: it may come while no line is live, and frames are missing after it as before.
    """
    closes_gaps = answer.purpose in (Purpose.SNAPSHOT, Purpose.GAP_FILL)
    feed = PRIVATE_FEED_BY_PART.get(answer.part) if closes_gaps else None
    channel = channels.get(feed) if feed else None
    if feed is None or channel is None:
        return
    if channel.gap_reason is None:
        _limit_last_ms(channel, answer.time_ms)
        return
    if answer.part is Part.EXECUTIONS:
        close_gap(builder, feed, channel, to_ms=answer.time_ms, to_sequence=None, waits_for_rest=True)
        for gap in channel.unfilled:
            record_gap(builder, feed, gap, healed="yes", healed_by="rest", missing=None)
        channel.unfilled = []
    elif answer.part is Part.ORDERS:
        close_gap(builder, feed, channel, to_ms=answer.time_ms, to_sequence=None, waits_for_rest=True)
        for gap in channel.unfilled:
            record_gap(builder, feed, gap, healed="partly", healed_by="rest", missing=STATES_BETWEEN)
        channel.unfilled = []
    else:
        close_by_snapshot(builder, feed, channel, to_ms=answer.time_ms, to_sequence=None)
    channel.last_ms = max(channel.last_ms, answer.time_ms)


def _limit_last_ms(channel: ChannelState, time_ms: int) -> None:
    # last_ms may stand by our clock, which may be ahead of Bybit's: the next gap would begin too late.
    channel.last_ms = min(channel.last_ms, time_ms)


def add_trade(builder: RecordBuilder, category: str, row: RestTradeRow) -> None:
    """Add a trade that REST returned, marked `healed`."""
    time_ms = int(row.time)
    value = {
        "schema_version": 1,
        "source": "rest-backfill",
        "trace_id": builder.trace_id,
        "timestamp": iso(time_ms),
        "symbol": row.symbol,
        "category": category,
        "trade_id": row.execId,
        "price": row.price,
        "size": row.size,
        "side": row.side,
        "tick_direction": None,
        "is_block_trade": row.isBlockTrade,
        "is_rpi_trade": row.isRPITrade,
        "sequence": int(row.seq) if row.seq else None,
        "healed": True,
    }
    builder.add(Topic.MARKET_TRADES, f"{category}:{row.symbol}".encode(), value, time_ms)
