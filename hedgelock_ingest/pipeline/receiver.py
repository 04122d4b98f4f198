"""Receive: decode each frame, let the first copy win, and note when a channel has no live line."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec
import structlog

from hedgelock_ingest.errors import FrameError
from hedgelock_ingest.protocol.channels import feed_name
from hedgelock_ingest.protocol.first_copy import FirstCopy, FirstCopyOfBook, Offer
from hedgelock_ingest.protocol.frames import NOTE, Category, Frame
from hedgelock_ingest.protocol.lines import LineControl, LineKey
from hedgelock_ingest.protocol.wire import Control, DataMessage, decode
from hedgelock_ingest.translate.state import Note

log = structlog.get_logger(__name__)

SNAPSHOT_PATIENCE_S = 5.0
"""How long a broken book waits for its snapshot before another one is asked for."""

_UUID_BYTES = 16


class Arrival(NamedTuple):
    """A frame to be journalled, with its message when it could be decoded."""

    frame: Frame
    message: DataMessage | None


def new_trace() -> bytes:
    """Give the 16 bytes of a version 4 UUID."""
    return _as_version_4(os.urandom(_UUID_BYTES))


def _as_version_4(random: bytes) -> bytes:
    # RFC 9562, section 5.4: version in the high half of byte 6, variant in the top bits of byte 8.
    return b"%b%c%b%c%b" % (random[:6], random[6] & 0x0F | 0x40, random[7:8], random[8] & 0x3F | 0x80, random[9:])


class Receiver:
    """
    Takes what lines read and keeps, in `arrivals`, what is to be journalled.

    `wake` is called when arrivals have come. Everything happens inside the calls of the lines, in the event loop.
    """

    def __init__(self, feeds: Sequence[str], wake: Callable[[], None]) -> None:
        """Expect the channels of `feeds`, such as `linear:publicTrade.BTCUSDT`."""
        self.arrivals: list[Arrival] = []
        self.lines: Mapping[str, LineControl] = {}
        self.frames = 0
        self.undecodable = 0
        self.without_line: set[str] = set(feeds)
        self._wake = wake
        self._copies: dict[tuple[str, str], FirstCopy[LineKey, Frame]] = {}
        self._channels: dict[LineKey, Sequence[str]] = {}
        self._heard_s: dict[LineKey, float] = {}
        self._asked_s: dict[str, float] = {}

    @property
    def copies(self) -> int:
        """Frames dropped because another line had brought them."""
        return sum(copy.copies for copy in self._copies.values())

    @property
    def late(self) -> int:
        """Book updates dropped because a later one had been accepted without them."""
        return sum(copy.late for copy in self._copies.values() if isinstance(copy, FirstCopyOfBook))

    def line_opened(self, line: LineKey, channels: Sequence[str]) -> None:
        """Expect frames of a line."""
        self._channels[line] = channels
        self._heard_s[line] = time.monotonic()
        for channel in channels:
            self._first_copy(_category(line), channel).line_opened(line)

    def frames_received(self, line: LineKey, frames: list[bytes], received_ns: int) -> None:
        """Take the frames of one read; the hot path."""
        now_s = time.monotonic()
        self._heard_s[line] = now_s
        self.frames += len(frames)
        random = os.urandom(_UUID_BYTES * len(frames))
        name, category = line.name, _category(line)
        for number, raw in enumerate(frames):
            trace = _as_version_4(random[number * _UUID_BYTES : (number + 1) * _UUID_BYTES])
            frame = Frame(name, received_ns, trace, raw)
            try:
                message = decode(raw)
            except FrameError:
                self.undecodable += 1
                self.arrivals.append(Arrival(frame, None))
                continue
            if isinstance(message, Control):
                self.lines[name].control(line, message)
                continue
            copy = self._copies.get((category, message.topic)) or self._unasked(line, message.topic)
            self._accept(copy.offer(line, message, frame, now_s))
            if type(copy) is FirstCopyOfBook and copy.is_broken:
                self._ask_for_snapshot(category, message.topic, copy, now_s)
        if self.arrivals:
            self._wake()

    def channel_confirmed(self, line: LineKey, channel: str) -> None:
        """Note that a channel is live on a line."""
        copy = self._first_copy(_category(line), channel)
        copy.confirmed(line, time.monotonic())
        if copy.has_joined(line):
            self._note_up([feed_name(Category(_category(line)), channel)])

    def channel_rejected(self, line: LineKey, channel: str, reason: str) -> None:
        """Leave it to the line, which asks again and logs it."""

    def line_closed(self, line: LineKey, cause: str) -> None:
        """Let another line take over, or note that channels have none."""
        now_s = time.monotonic()
        heard_s = self._heard_s.pop(line)
        category = _category(line)
        accepted: list[Offer[Frame]] = []
        down, up = [], []
        for channel in self._channels.pop(line):
            copy = self._first_copy(category, channel)
            handover = copy.line_closed(line, heard_s=heard_s, now_s=now_s)
            accepted += handover.accepted
            if handover.is_hole:
                down.append(feed_name(Category(category), channel))
                if copy.joined:
                    up.append(down[-1])
        if down:
            self.note("down", down, f"no live line: {cause}")
            self.without_line.update(down)
        self._accept(accepted)
        self._note_up(up)
        self._wake()

    def has_joined(self, line: LineKey) -> bool:
        """Say whether the line alone would be enough for all its channels."""
        category = _category(line)
        return all(self._first_copy(category, channel).has_joined(line) for channel in self._channels.get(line, ()))

    def tick(self) -> None:
        """Once in a while: give up waiting for skipped updates, ask again for snapshots."""
        now_s = time.monotonic()
        for (category, channel), copy in list(self._copies.items()):
            if isinstance(copy, FirstCopyOfBook):
                self._accept(copy.tick(now_s))
                if copy.is_broken:
                    self._ask_for_snapshot(category, channel, copy, now_s)
        if self.arrivals:
            self._wake()

    def note(self, kind: str, feeds: Sequence[str], reason: str = "") -> None:
        """Put a note of our own into the journal, between the frames."""
        received_ns = time.time_ns()
        note = Note(kind, received_ns // 1_000_000, list(feeds), reason)
        self.arrivals.append(Arrival(Frame(NOTE, received_ns, new_trace(), msgspec.json.encode(note)), None))
        self._wake()

    def _note_up(self, feeds: Sequence[str]) -> None:
        news = [feed for feed in feeds if feed in self.without_line]
        if news:
            self.without_line.difference_update(news)
            self.note("up", news)

    def _accept(self, offers: Sequence[Offer[Frame]]) -> None:
        for offer in offers:
            self.arrivals.append(Arrival(offer.payload, offer.message))

    def _first_copy(self, category: str, channel: str) -> FirstCopy[LineKey, Frame]:
        key = (category, channel)
        copy = self._copies.get(key)
        if copy is None:
            # Level 1 comes as snapshots alone, whose numbers need not follow one another.
            numbered = channel.startswith("orderbook.") and not channel.startswith("orderbook.1.")
            copy = self._copies[key] = FirstCopyOfBook() if numbered else FirstCopy()
        return copy

    def _unasked(self, line: LineKey, channel: str) -> FirstCopy[LineKey, Frame]:
        """Take a channel that nobody asked for: what reached us is kept."""
        copy = self._first_copy(_category(line), channel)
        copy.line_opened(line)
        self._channels[line] = [*self._channels[line], channel]
        return copy

    def _ask_for_snapshot(
        self, category: str, channel: str, copy: FirstCopyOfBook[LineKey, Frame], now_s: float
    ) -> None:
        feed = f"{category}:{channel}"
        if now_s - self._asked_s.get(feed, float("-inf")) < SNAPSHOT_PATIENCE_S or not copy.joined:
            return
        self._asked_s[feed] = now_s
        line = min(copy.joined)
        log.warning("order_book_broken", feed=feed, line=line.name)
        self.lines[line.name].resubscribe(channel)


def _category(line: LineKey) -> str:
    return line.name.partition("-")[0]
