"""Translate the frames of a journal into records: the same journal gives the same records, byte for byte."""

import base64
from collections import Counter
from collections.abc import Sequence

import msgspec

from hedgelock_ingest.errors import FrameError
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.channels import is_trades_feed, starts_with_snapshot
from hedgelock_ingest.protocol.exchange_time import (
    MAX_AHEAD_MS,
    TOLERANCE_MS,
    USUAL_DEVIATION_MS,
    ExchangeTime,
)
from hedgelock_ingest.protocol.frames import NOTE, PRIVATE, REST, Frame
from hedgelock_ingest.protocol.messages import (
    BookMessage,
    Control,
    DataMessage,
    LiquidationsMessage,
    TickerMessage,
    TradesMessage,
    channel_named_in,
    decode,
)
from hedgelock_ingest.protocol.rest_messages import PRIVATE_FEED_BY_PART, Part, Purpose, RestAnswer
from hedgelock_ingest.protocol.rest_rows import answer_about
from hedgelock_ingest.translate.account import Account
from hedgelock_ingest.translate.books import is_known_book, new_book, take_book
from hedgelock_ingest.translate.formatting import iso
from hedgelock_ingest.translate.gap_fill_records import close_private_gaps, fill_trades, give_up_gap_fill
from hedgelock_ingest.translate.gaps import close_gap, open_gap
from hedgelock_ingest.translate.record import Record
from hedgelock_ingest.translate.record_builder import RecordBuilder
from hedgelock_ingest.translate.rest_answers import decode_answer, take_answer
from hedgelock_ingest.translate.seen_ids import SeenIds
from hedgelock_ingest.translate.state import (
    BookState,
    ChannelState,
    Feed,
    Note,
    State,
    TickerState,
    category_of,
    decode_note,
    feed_of,
)
from hedgelock_ingest.translate.tickers import is_known_ticker, take_ticker, take_ticker_answer
from hedgelock_ingest.translate.trades import take_liquidations, take_trades

LOST_IN_JOURNAL = "the journal was damaged and has lost frames"
_decode_state = msgspec.msgpack.Decoder(State).decode


class Translator:
    """
    Translates journalled frames into records, in the order of the journal.

    The records depend only on its state and the frame. `counts` holds what was dropped, by reason.
    """

    def __init__(
        self,
        state: bytes | None = None,
        *,
        account_id: str = "default_account",
        state_depth: int = 50,
        state_interval_ms: int = 1_000,
    ) -> None:
        """
        Continue from a saved state.

        Args:
            state: Returned by `save`; None starts from an empty state.
            account_id: The account of the private frames.
            state_depth: Levels a side in our own full snapshots of order books.
            state_interval_ms: Interval of these snapshots in Bybit's time; 0 turns them off.

        Raises:
            msgspec.DecodeError: `save` did not return this state.
        """
        self._state = State() if state is None else _decode_state(state)
        self._state_depth = state_depth
        self._state_interval_ms = state_interval_ms
        channels = self._state.channels
        self._seen_ids: dict[str, SeenIds] = {
            feed: SeenIds(chunks, keeps_all=feed in channels and bool(channels[feed].unfilled))
            for feed, chunks in self._state.seen_ids.items()
        }
        self._state.seen_ids = {}
        self._time = self._state.time
        self._spot_books: dict[str, list[BookState]] = {}
        for feed, book in self._state.books.items():
            self._index_spot_book(feed, book)
        self._feeds: dict[str, dict[str, Feed]] = {}
        self.counts: Counter[str] = Counter()
        self._account = Account(account_id, self._state.account, self.counts)

    @property
    def missing_account_parts(self) -> list[str]:
        """List the parts of the account that were never seen; until all were, no merged view is published."""
        return self._account.missing_parts

    def last_seen_ms(self, feed: str) -> int | None:
        """Return Bybit's time of a feed's last frame before gaps that are not filled; None if none was seen."""
        channel = self._state.channels.get(feed)
        return None if channel is None else min([channel.last_ms, *(gap.from_ms for gap in channel.unfilled)])

    def save(self) -> bytes:
        """Return the encoded state after the last frame translated."""
        self._state.account = self._account.save()
        seen_ids = {feed: ids.save() for feed, ids in self._seen_ids.items()}
        return msgspec.msgpack.encode(msgspec.structs.replace(self._state, seen_ids=seen_ids))

    def lose_frames(self, next_ms: int) -> None:
        """
        Record that the journal has lost frames before the next one; their channels are unknown.

        Args:
            next_ms: When the next one was read; the gap begins there if no channel is known from before.
        """
        channels = self._state.channels.values()
        if self._state.lost_ms is None:
            self._state.lost_ms = max((channel.last_ms for channel in channels), default=next_ms)
        for channel in channels:
            open_gap(channel, LOST_IN_JOURNAL)

    def translate(self, position: int, frame: Frame, message: DataMessage | None = None) -> list[Record]:
        """
        Return the records of one frame.

        Args:
            position: The frame's position in the journal.
            frame: As it was journalled.
            message: The result of `decode`, if the caller has it already.
        """
        builder = RecordBuilder()
        builder.begin(position, frame)
        self.take(builder, message)
        return builder.records

    def take(self, builder: RecordBuilder, message: DataMessage | None) -> None:
        """Add the records of the current frame of `builder`; see `translate`."""
        feed: Feed | None = None
        try:
            data = message or self._decoded(builder)
            if data is not None:
                origin = builder.frame.origin
                try:
                    feed = self._feeds[origin][data.topic]
                except KeyError:
                    feed = self._new_feed(origin, data.topic)
                if feed.category == PRIVATE:
                    self._take_private(builder, feed.name, data)
                else:
                    self._take(builder, feed, data)
        except FrameError as error:
            builder.leave_out()
            self._add_dead_letter(builder, feed, str(error))

    def _decoded(self, builder: RecordBuilder) -> DataMessage | None:
        """Decode a frame; apply it and return None when it is a note or a REST answer instead of a message."""
        frame = builder.frame
        category = category_of(frame.origin)
        if category == NOTE:
            self._take_note(builder, decode_note(frame.raw))
            return None
        if category == REST:
            self._take_answer(builder, decode_answer(frame.raw))
            return None
        message = decode(frame.raw)
        if isinstance(message, Control):
            raise FrameError("an answer about the connection, not data")
        return message

    def _new_feed(self, origin: str, topic: str) -> Feed:
        feed = self._feeds.setdefault(origin, {})[topic] = feed_of(origin, topic)
        return feed

    def _take_private(self, builder: RecordBuilder, feed: str, message: DataMessage) -> None:
        if isinstance(message, BookMessage | TickerMessage | TradesMessage | LiquidationsMessage):
            raise FrameError("a public topic on a private line")
        our_ms = builder.frame.received_ns // 1_000_000
        at_ms = self._time.plausible_ms(message.ts, our_ms, max_ahead_ms=MAX_AHEAD_MS)
        channel = self._known_channel(feed, at_ms)
        self._account.keeps_all = self._account_has_gap()
        self._account.take(builder, message, _latest_ms(message.ts, at_ms))
        if channel.gap_reason is None:
            channel.frame_ms = max(channel.frame_ms, _earliest_ms(message.ts, at_ms))
            channel.last_ms = max(channel.last_ms, channel.frame_ms)

    def _take_answer(self, builder: RecordBuilder, answer: RestAnswer) -> None:
        builder.trace_id = answer.trace_id or builder.trace_id
        if answer.part is Part.TICKER:
            undecodable = take_ticker_answer(builder, answer, self._state.channels, self.counts)
        elif answer.part is Part.TRADES:
            undecodable = fill_trades(builder, answer, self._state.channels, self._ids_of(answer.feed))
        else:
            self._account.keeps_all = self._account_has_gap()
            undecodable = take_answer(self._account, builder, answer)
            close_private_gaps(builder, answer, self._state.channels, undecodable=len(undecodable))
        for row in undecodable:
            self._add_dead_letter(builder, None, row.reason, raw=answer_about(answer, row))
        if answer.purpose is Purpose.READ_BACK:  # another process has published it there
            builder.leave_out(Topic.ACCOUNT_RAW)

    def _account_has_gap(self) -> bool:
        found = [self._state.channels.get(feed) for feed in PRIVATE_FEED_BY_PART.values()]
        return any(each is not None and (each.unfilled or each.gap_reason is not None) for each in found)

    def _take(self, builder: RecordBuilder, feed: Feed, message: DataMessage) -> None:
        at_ms = end_ms = message.ts
        our_ms, time = builder.frame.received_ns // 1_000_000, self._time
        deviation_ms = at_ms - our_ms - time.ahead_ms
        if time.deviating or not time.is_confirmed or not -USUAL_DEVIATION_MS <= deviation_ms <= USUAL_DEVIATION_MS:
            at_ms = time.plausible_ms(message.ts, our_ms, max_ahead_ms=MAX_AHEAD_MS)
            end_ms = _latest_ms(message.ts, at_ms)
        channel = feed.channel or self._state.channels.get(feed.name) or self._new_channel(at_ms)
        sequence: int | None = None
        if type(message) is BookMessage:
            book = feed.book or self._book(feed, message)
            if is_known_book(book, message):
                self.counts["books_known"] += 1
                channel.gap_reason = None if message.type == "snapshot" else channel.gap_reason
                return
            take_book(
                builder,
                feed,
                channel,
                book,
                message,
                at_ms=end_ms,
                state_depth=self._state_depth,
                state_interval_ms=self._state_interval_ms,
            )
            sequence = message.data.u
        elif type(message) is TradesMessage:
            sequence = message.data[-1].seq
            self._close_gap(builder, feed.name, channel, end_ms, message.data[0].seq)
            seen_ids = self._ids_of(feed.name)
            seen_ids.keeps_all = bool(channel.unfilled)
            take_trades(builder, feed, seen_ids, message, self.counts)
        elif type(message) is TickerMessage:
            ticker = feed.ticker or self._state.tickers.get(feed.name) or TickerState()
            if is_known_ticker(ticker, message, our_ms):
                self.counts["tickers_known"] += 1
                channel.gap_reason = None if message.type == "snapshot" else channel.gap_reason
                return
            books = self._books_for(feed)
            take_ticker(builder, feed, channel, ticker, books, message, self.counts, at_ms=end_ms)
            if feed.ticker is None:
                feed.ticker = self._state.tickers[feed.name] = ticker
            sequence = message.cs
        elif type(message) is LiquidationsMessage:
            self._close_gap(builder, feed.name, channel, end_ms, None)
            take_liquidations(builder, feed, self._ids_of(feed.name), message, self.counts)
        else:
            raise FrameError("a private topic on a public line")
        if channel.gap_reason is None:  # while a gap is open, its beginning stays
            if at_ms != message.ts:
                at_ms = max(channel.frame_ms, _earliest_ms(message.ts, at_ms))
            channel.last_ms = channel.frame_ms = at_ms
            channel.last_sequence = sequence
        if feed.channel is None:
            feed.channel = self._state.channels[feed.name] = channel

    def _ids_of(self, feed: str) -> SeenIds:
        return self._seen_ids.get(feed) or self._seen_ids.setdefault(feed, SeenIds())

    def _known_channel(self, feed: str, at_ms: int) -> ChannelState:
        return self._state.channels.get(feed) or self._state.channels.setdefault(feed, self._new_channel(at_ms))

    def _new_channel(self, at_ms: int) -> ChannelState:
        lost_ms = self._state.lost_ms
        return ChannelState(at_ms) if lost_ms is None else ChannelState(min(lost_ms, at_ms), gap_reason=LOST_IN_JOURNAL)

    def _books_for(self, feed: Feed) -> Sequence[BookState]:
        """Return the books whose top completes a spot ticker: the shallowest first, which is pushed most often."""
        return self._spot_books.get(feed.symbol, ()) if feed.category == "spot" else ()

    def _book(self, feed: Feed, message: BookMessage) -> BookState:
        book = self._state.books.get(feed.name)
        if book is None:
            book = self._state.books[feed.name] = new_book(message.topic)
            self._index_spot_book(feed.name, book)
        feed.book = book
        return book

    def _index_spot_book(self, feed: str, book: BookState) -> None:
        if feed.startswith("spot:"):
            books = self._spot_books.setdefault(feed.rpartition(".")[2], [])
            books.append(book)
            books.sort(key=lambda each: each.depth)

    def _close_gap(
        self, builder: RecordBuilder, feed: str, channel: ChannelState, to_ms: int, to_sequence: int | None
    ) -> None:
        if channel.gap_reason is None:
            return
        waits_for_rest = feed.startswith(PRIVATE) or (self._state.fills_gaps and is_trades_feed(feed))
        close_gap(builder, feed, channel, to_ms=to_ms, to_sequence=to_sequence, waits_for_rest=waits_for_rest)

    def _take_note(self, builder: RecordBuilder, note: Note) -> None:
        if note.note == "started":
            self._state.fills_gaps = note.fills_gaps
            # Of another process, perhaps with another clock: its estimate is all that is known until frames come.
            our_ms = builder.frame.received_ns // 1_000_000
            self._time = self._state.time = ExchangeTime(note.at_ms - our_ms)
        for feed in note.channels:
            if note.note != "up" and self._state.lost_ms is None and feed not in self._state.channels:
                continue  # never live before, so nothing is missing
            channel = self._known_channel(feed, note.at_ms)
            if note.note == "up":
                self._go_up(builder, feed, channel, note.at_ms)
            elif note.note == "unhealed":
                give_up_gap_fill(builder, feed, channel, note.reason)
            else:
                if note.note == "started" and not note.fills_gaps:
                    give_up_gap_fill(builder, feed, channel, "the process ended before REST had answered")
                open_gap(channel, note.reason)
        if note.note == "started":  # The note lists all channels: any other that appears later is new.
            self._state.lost_ms = None

    def _go_up(self, builder: RecordBuilder, feed: str, channel: ChannelState, at_ms: int) -> None:
        # Other channels wait for a snapshot, which closes the gap.
        if channel.gap_reason is not None and not starts_with_snapshot(feed.partition(":")[2]):
            self._close_gap(builder, feed, channel, at_ms, None)
            channel.last_ms = max(channel.last_ms, at_ms)

    def _add_dead_letter(
        self, builder: RecordBuilder, feed: Feed | None, reason: str, *, raw: bytes | None = None
    ) -> None:
        self.counts["dead_letters"] += 1
        frame = builder.frame
        name = _feed_name_in(frame) if feed is None else feed.name
        received_ms = frame.received_ns // 1_000_000
        builder.add(
            Topic.INGEST_DEAD_LETTERS,
            name.encode(),
            {
                "schema_version": 1,
                "source": "collector",
                "trace_id": builder.trace_id,
                "timestamp": iso(received_ms),
                "raw": base64.b64encode(frame.raw if raw is None else raw).decode(),
                "reason": reason,
                "origin": "rest" if frame.origin.startswith(REST) else "websocket",
                "line": frame.origin,
                "feed": name,
                "attempts": 1,
            },
            received_ms,
        )


def _earliest_ms(exchange_ms: int, plausible_ms: int) -> int:
    """Return the time of a frame where it must not be too late: an estimate does not include the line's lag."""
    return exchange_ms if exchange_ms == plausible_ms else min(exchange_ms, plausible_ms - TOLERANCE_MS)


def _latest_ms(exchange_ms: int, plausible_ms: int) -> int:
    """Return the time of a frame where it must not be too early: one that is a little ahead may be right."""
    return exchange_ms if 0 <= exchange_ms - plausible_ms <= TOLERANCE_MS else plausible_ms


def _feed_name_in(frame: Frame) -> str:
    """Return the feed of a frame that could not be decoded, or its category if no channel is found in it."""
    category, channel = category_of(frame.origin), channel_named_in(frame.raw)
    return f"{category}:{channel}" if channel else category
