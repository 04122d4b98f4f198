"""From the frames of a journal to records: the same journal gives the same records, byte for byte."""

import base64
from collections import Counter

import msgspec

from hedgelock_ingest.errors import FrameError
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.frames import NOTE, Frame
from hedgelock_ingest.protocol.wire import (
    BookMessage,
    Control,
    DataMessage,
    LiquidationsMessage,
    TickerMessage,
    TradesMessage,
    decode,
)
from hedgelock_ingest.translate.books import is_copy, new_book, take_book
from hedgelock_ingest.translate.holes import close_hole, open_hole
from hedgelock_ingest.translate.making import Making
from hedgelock_ingest.translate.prints import Remembered, take_liquidations, take_trades
from hedgelock_ingest.translate.record import Record
from hedgelock_ingest.translate.state import BookState, ChannelState, Note, State, TickerState
from hedgelock_ingest.translate.text import iso
from hedgelock_ingest.translate.ticker import take_ticker

_decode_note = msgspec.json.Decoder(Note).decode
_decode_state = msgspec.msgpack.Decoder(State).decode

_SNAPSHOT_FEEDS = ("orderbook", "tickers")


class Translator:
    """
    Turns journalled frames into records, in the order of the journal.

    What it gives depends on its state and the frame alone. `counts` tells what was dropped and why.
    """

    def __init__(self, state: bytes | None = None, *, state_depth: int = 50, state_interval_ms: int = 1_000) -> None:
        """
        Go on from a saved state.

        Args:
            state: What `save` gave, None for the beginning.
            state_depth: Levels a side in our own full views of order books.
            state_interval_ms: How far apart they are in Bybit's time; 0 turns them off.

        Raises:
            msgspec.DecodeError: The state is not one that `save` gave.
        """
        self._state = State() if state is None else _decode_state(state)
        self._state_depth = state_depth
        self._state_interval_ms = state_interval_ms
        self._prints: dict[str, Remembered] = {feed: dict.fromkeys(names) for feed, names in self._state.prints.items()}
        self.counts: Counter[str] = Counter()

    def save(self) -> bytes:
        """Give the state after the last frame translated."""
        self._state.prints = {feed: [str(name) for name in names] for feed, names in self._prints.items()}
        return msgspec.msgpack.encode(self._state)

    def translate(self, position: int, frame: Frame, message: DataMessage | None = None) -> list[Record]:
        """
        Give the records of one frame.

        Args:
            position: The frame's position in the journal.
            frame: As it was journalled.
            message: What `decode` gives of it, if that is known already.
        """
        making = Making(position, frame)
        if frame.origin == NOTE:
            self._take_note(making, _decode_note(frame.raw))
            return making.records
        category = frame.origin.partition("-")[0]
        feed = category
        try:
            decoded = message or decode(frame.raw)
            if isinstance(decoded, Control):
                raise FrameError("an answer about the connection, not data")
            feed = f"{category}:{decoded.topic}"
            self._take(making, category, feed, decoded)
        except FrameError as error:
            making.records.clear()
            self._add_dead_letter(making, feed, str(error))
        return making.records

    def _take(self, making: Making, category: str, feed: str, message: DataMessage) -> None:
        iso(message.ts)
        channel = self._state.channels.get(feed) or ChannelState(last_ms=message.ts)
        sequence: int | None = None
        match message:
            case BookMessage():
                book = self._state.books.get(feed) or new_book(message.topic)
                if is_copy(book, message):
                    self.counts["books_known"] += 1
                    channel.hole = None if message.type == "snapshot" else channel.hole
                    return
                take_book(
                    making,
                    feed,
                    channel,
                    book,
                    message,
                    state_depth=self._state_depth,
                    state_interval_ms=self._state_interval_ms,
                )
                self._state.books[feed], sequence = book, message.data.u
            case TickerMessage():
                ticker = self._state.tickers.get(feed) or TickerState()
                if ticker.last == (message.ts, message.cs):
                    self.counts["tickers_known"] += 1
                    channel.hole = None if message.type == "snapshot" else channel.hole
                    return
                take_ticker(making, feed, channel, ticker, self._book_for(category, message), message)
                self._state.tickers[feed], sequence = ticker, message.cs
            case TradesMessage():
                sequence = message.data[-1].seq
                self._end_of_hole(making, feed, channel, message.ts, message.data[0].seq)
                take_trades(making, category, self._prints.setdefault(feed, {}), message, self.counts)
            case LiquidationsMessage():
                self._end_of_hole(making, feed, channel, message.ts, None)
                take_liquidations(making, category, self._prints.setdefault(feed, {}), message, self.counts)
        if channel.hole is None:  # while a hole is open, its beginning stands
            channel.last_ms, channel.last_sequence = message.ts, sequence
        self._state.channels[feed] = channel

    def _book_for(self, category: str, message: TickerMessage) -> BookState | None:
        """Find the book whose top completes a spot ticker: the shallowest, which is the quickest."""
        if category != "spot":
            return None
        symbol = message.topic.partition(".")[2]
        books = [
            book
            for feed, book in self._state.books.items()
            if feed.startswith("spot:") and feed.endswith(f".{symbol}") and book.continuous
        ]
        return min(books, key=lambda book: book.depth, default=None)

    @staticmethod
    def _end_of_hole(making: Making, feed: str, channel: ChannelState, to_ms: int, to_sequence: int | None) -> None:
        close_hole(making, feed, channel, to_ms=to_ms, to_sequence=to_sequence, healed="no")

    def _take_note(self, making: Making, note: Note) -> None:
        for feed in note.channels:
            channel = self._state.channels.get(feed)
            if note.note == "up":
                if channel is None:
                    self._state.channels[feed] = ChannelState(last_ms=note.at_ms)
                elif not feed.partition(":")[2].startswith(_SNAPSHOT_FEEDS):
                    self._end_of_hole(making, feed, channel, note.at_ms, None)
                    channel.last_ms = max(channel.last_ms, note.at_ms)
            elif channel is not None:
                open_hole(channel, note.reason)

    def _add_dead_letter(self, making: Making, feed: str, reason: str) -> None:
        self.counts["dead_letters"] += 1
        frame = making.frame
        received_ms = frame.received_ns // 1_000_000
        making.add(
            Topic.INGEST_DEAD_LETTERS,
            feed.encode(),
            {
                "schema_version": 1,
                "source": "collector",
                "trace_id": making.trace_id,
                "timestamp": iso(received_ms),
                "raw": base64.b64encode(frame.raw).decode(),
                "reason": reason,
                "origin": "websocket",
                "line": frame.origin,
                "feed": feed,
                "attempts": 1,
            },
            received_ms,
        )
