"""Fill gaps from REST answers, and record how far each was filled."""

from collections.abc import Iterator

from hedgelock_ingest.errors import FrameError
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.rest_messages import PRIVATE_FEED_BY_PART, Part, Purpose, RestAnswer, RestTradeRow
from hedgelock_ingest.protocol.rest_rows import UndecodableRow, rows_in
from hedgelock_ingest.translate.dated_trades import DatedTrade, dated_trades
from hedgelock_ingest.translate.formatting import iso
from hedgelock_ingest.translate.gaps import STATES_BETWEEN, Filled, record_gap
from hedgelock_ingest.translate.record_builder import RecordBuilder
from hedgelock_ingest.translate.seen_ids import SeenIds
from hedgelock_ingest.translate.state import ChannelState, GapSpan

_NEVER_MS = 2**63


def fill_trades(
    builder: RecordBuilder, answer: RestAnswer, channels: dict[str, ChannelState], seen_ids: SeenIds
) -> list[UndecodableRow]:
    """
    Publish the trades of a feed that lie in its gaps, marked `healed`; the last answer about closed gaps records them.

    A gap is filled completely when each answer reaches back to the one before it, the first one to a trade from before
    the gap, and all trades can be decoded.

    Returns:
        Rows that cannot be decoded.

    Raises:
        FrameError: The answer is malformed, or not about the trades of a feed.
    """
    category = answer.feed.partition(":")[0]
    if category not in answer.results:
        raise FrameError("trades of an unknown feed")
    found = rows_in(answer)
    channel = channels.get(answer.feed)
    if channel is None:  # never live before, so nothing is missing
        return found.undecodable
    trades = dated_trades([row for name, row in found.decoded if name == category], answer.time_ms)
    _extend_coverage(channel, trades, seen_ids, len(found.undecodable))
    for trade in trades:
        row = trade.row
        if row.execId not in seen_ids.known and _is_missing(channel, trade):
            seen_ids.add(row.execId)
            add_trade(builder, category, row)
    if answer.closes_gaps:
        for gap in channel.unfilled:
            _record_trades_gap(builder, answer.feed, gap)
        channel.unfilled = []
    if channel.gap_reason is None:
        _limit_last_ms(channel, answer.time_ms)
    return found.undecodable


def give_up_gap_fill(builder: RecordBuilder, feed: str, channel: ChannelState, reason: str) -> None:
    """Record gaps that REST did not fill, or not to their ends."""
    for gap in channel.unfilled:
        filled_to_ms = gap.coverage.to_ms
        if filled_to_ms <= gap.from_ms:
            record_gap(builder, feed, gap, healed="no", healed_by=None, missing=f"everything: {reason}")
            continue
        if filled_to_ms < gap.to_ms:
            gap.coverage.skipped.append((filled_to_ms, gap.to_ms))
        _record_trades_gap(builder, feed, gap, reason)
    channel.unfilled = []


def close_private_gaps(
    builder: RecordBuilder, answer: RestAnswer, channels: dict[str, ChannelState], *, undecodable: int = 0
) -> None:
    """
    Record the gaps of a private channel that a REST answer fills: executions completely, other channels in part.

    A poll fills no gap: it may come while no line is live, and frames are missing after it as before.

    Args:
        builder: Receives the records.
        answer: Applied already.
        channels: State of the channels.
        undecodable: Rows of the answer that cannot be decoded.
    """
    is_about_gaps = answer.purpose in (Purpose.SNAPSHOT, Purpose.GAP_FILL)
    feed = PRIVATE_FEED_BY_PART.get(answer.part) if is_about_gaps else None
    channel = channels.get(feed) if feed else None
    if feed is None or channel is None:
        return
    if channel.gap_reason is None:
        _limit_last_ms(channel, answer.time_ms)
    if not answer.closes_gaps:
        return
    missing = [] if answer.part is Part.EXECUTIONS else [STATES_BETWEEN]
    missing += [f"{category} ({reason})" for category, reason in answer.silent_about.items()]
    missing += _undecodable_text(undecodable)
    healed_by = "snapshot" if answer.part in (Part.WALLET, Part.POSITIONS) else "rest"
    for gap in channel.unfilled:
        _record_filled(builder, feed, gap, missing, healed_by=healed_by)
    channel.unfilled = []


def _extend_coverage(channel: ChannelState, trades: list[DatedTrade], seen_ids: SeenIds, undecodable: int) -> None:
    """Note how far trades, which are in order, fill the gaps of a channel, and what is missing before them."""
    dated = [trade for trade in trades if trade.begin_ms == trade.end_ms]
    spans = [(gap.from_ms, gap.to_ms, gap.coverage) for gap in channel.unfilled]
    if channel.gap_reason is not None:
        spans.append((channel.last_ms, _NEVER_MS, channel.coverage))
    for from_ms, to_ms, coverage in spans:
        coverage.undecodable = max(coverage.undecodable, undecodable)
        begin_ms = max(from_ms, coverage.to_ms)
        if not dated or begin_ms > to_ms:
            continue
        oldest_ms, newest_ms = dated[0].begin_ms, dated[-1].begin_ms
        is_adjacent = oldest_ms < begin_ms or (oldest_ms == begin_ms and dated[0].row.execId in seen_ids.known)
        if not is_adjacent:
            coverage.skipped.append((begin_ms, min(oldest_ms, to_ms)))
        coverage.to_ms = max(begin_ms, newest_ms)


def _is_missing(channel: ChannelState, trade: DatedTrade) -> bool:
    """Return whether a trade may lie in a gap."""
    is_open = channel.gap_reason is not None and trade.end_ms >= channel.last_ms
    return is_open or any(gap.from_ms <= trade.end_ms and trade.begin_ms <= gap.to_ms for gap in channel.unfilled)


def _record_trades_gap(builder: RecordBuilder, feed: str, gap: GapSpan, reason: str | None = None) -> None:
    """Record a gap as far as it was filled; `reason` is why REST did not fill the end of it."""
    skipped, because = gap.coverage.skipped, f": {reason}" if reason else ""
    if not gap.coverage.to_ms or skipped == [(gap.from_ms, gap.to_ms)]:
        record_gap(builder, feed, gap, healed="no", healed_by=None, missing=f"everything{because}")
        return
    missing = [_skipped_text(gap, begin_ms, end_ms) for begin_ms, end_ms in skipped]
    missing += _undecodable_text(gap.coverage.undecodable)
    if missing:
        missing[-1] += because
    _record_filled(builder, feed, gap, missing)


def _skipped_text(gap: GapSpan, begin_ms: int, end_ms: int) -> str:
    if begin_ms == gap.from_ms:
        return f"trades before {iso(end_ms)}"
    return f"trades after {iso(begin_ms)}" + ("" if end_ms == gap.to_ms else f" and before {iso(end_ms)}")


def _record_filled(
    builder: RecordBuilder, feed: str, gap: GapSpan, missing: list[str], *, healed_by: str = "rest"
) -> None:
    healed: Filled = "partly" if missing else "yes"
    record_gap(builder, feed, gap, healed=healed, healed_by=healed_by, missing="; ".join(missing) or None)


def _undecodable_text(count: int) -> Iterator[str]:
    if count:
        yield f"{count} {'row' if count == 1 else 'rows'} that cannot be decoded"


def _limit_last_ms(channel: ChannelState, time_ms: int) -> None:
    # last_ms may stand by our clock, which may be ahead of Bybit's: the next gap would begin too late. Frames that came
    # before a list that lags behind them were received all the same.
    channel.last_ms = max(channel.frame_ms, min(channel.last_ms, time_ms))


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
