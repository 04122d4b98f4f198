"""Receiver of frames: drops duplicate copies, and notes when a channel has no live line."""

import math
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

import msgspec
import structlog

from hedgelock_ingest.clock import Clock
from hedgelock_ingest.pipeline.arrivals import Arrivals
from hedgelock_ingest.pipeline.ports import Watcher
from hedgelock_ingest.pipeline.refusals import Refusals
from hedgelock_ingest.protocol.arbitration import DEFAULT_TIMING, ArbitrationTiming, ChannelArbitration, Offer
from hedgelock_ingest.protocol.book_arbitration import BookArbitration
from hedgelock_ingest.protocol.channels import is_steady
from hedgelock_ingest.protocol.exchange_time import ExchangeTime
from hedgelock_ingest.protocol.frames import NOTE, REST, Frame
from hedgelock_ingest.protocol.line_events import LineKey, Resubscribe
from hedgelock_ingest.protocol.messages import DataMessage
from hedgelock_ingest.protocol.rest_messages import RestAnswer
from hedgelock_ingest.protocol.ticker_arbitration import TickerArbitration
from hedgelock_ingest.translate.state import Note, NoteKind

log = structlog.get_logger(__name__)

_COMMIT_FRAMES = 1_000
_COMMIT_BYTES = 4 * 1024 * 1024
"""From either on, later frames go to the next commit, which bounds the size of commits."""
_SPLIT_FACTOR = 4
"""Arrivals of more than this many commits are split: a line that joins may release many held frames at once."""
_UUID_BYTES = 16
_VERSION_4 = bytes(byte & 0x0F | 0x40 for byte in range(256))
_VARIANT = bytes(byte & 0x3F | 0x80 for byte in range(256))


def new_trace() -> bytes:
    """Return the 16 bytes of a random UUID of version 4."""
    return _new_traces(1, os.urandom)[0]


def _new_traces(count: int, random_bytes: Callable[[int], bytes]) -> list[bytes]:
    # RFC 9562, section 5.4: version in the high half of byte 6, variant in the top bits of byte 8.
    random = bytearray(random_bytes(_UUID_BYTES * count))
    random[6::_UUID_BYTES] = random[6::_UUID_BYTES].translate(_VERSION_4)
    random[8::_UUID_BYTES] = random[8::_UUID_BYTES].translate(_VARIANT)
    uuids = bytes(random)
    return [uuids[start : start + _UUID_BYTES] for start in range(0, len(uuids), _UUID_BYTES)]


class Receiver:
    """
    Accepts frames of lines and keeps those to be journalled, `waiting` in number, until `take`.

    `wake` is called after new arrivals. All work happens inside the calls of the lines, in the event loop.
    """

    def __init__(
        self,
        feeds: Sequence[str],
        wake: Callable[[], None],
        *,
        clock: Clock,
        watcher: Watcher | None = None,
        now_ms: Callable[[], int] = lambda: 0,
        random_bytes: Callable[[int], bytes] = os.urandom,
        snapshot_timeout_s: float = 1.0,
        arbitration_timing: ArbitrationTiming = DEFAULT_TIMING,
    ) -> None:
        """
        Prepare.

        Args:
            feeds: Expected feeds, such as `linear:publicTrade.BTCUSDT`.
            wake: Called after new arrivals.
            clock: Timestamps notes and answers.
            watcher: Notified of feeds that gain or lose their live line, after the note is queued.
            now_ms: Returns Bybit's time, 0 if unknown.
            random_bytes: Source of trace ids.
            snapshot_timeout_s: How long a broken book waits for its snapshot before another one is requested; a line
                ignores a request that is already pending.
            arbitration_timing: Bounds of how far lines lag behind each other.
        """
        self._arbitration_timing = arbitration_timing
        self._clock = clock
        self._random_bytes = random_bytes
        self._snapshot_timeout_s = snapshot_timeout_s
        self._watcher = watcher
        self.without_line: set[str] = set(feeds)
        self._arrivals = deque([Arrivals()])  # the last is added to
        self._wake = wake
        self._now_ms = now_ms
        self._time = ExchangeTime(clock.wall_ns() // 1_000_000 - int(clock.monotonic() * 1000))
        self._arbitrations: dict[str, ChannelArbitration[LineKey, Frame]] = {}
        self._arbitrations_on: dict[LineKey, dict[str, ChannelArbitration[LineKey, Frame]]] = {}
        self._data_s: dict[LineKey, float] = {}
        self._alive_s: dict[LineKey, float] = {}
        self._news_s: dict[str, float] = {}  # by the first feed of the lines that carry the same ones
        self._first_feed: dict[LineKey, str] = {}
        self._steady: set[LineKey] = set()
        self._resubscribe: dict[LineKey, Resubscribe] = {}
        self._subscribed: set[str] = set()
        self._requested_s: dict[str, float] = {}
        self._refusals = Refusals()

    @property
    def refused(self) -> dict[str, str]:
        """The feeds without a live line that Bybit refuses, with its reason."""
        return self._refusals.within(self.without_line)

    @property
    def waiting(self) -> int:
        """Number of frames to be journalled."""
        return sum(map(len, self._arrivals))

    @property
    def copies(self) -> int:
        """Frames dropped because another line had delivered them."""
        return sum(arbitration.copies for arbitration in self._arbitrations.values())

    @property
    def late(self) -> int:
        """New frames dropped because later ones had been accepted without them."""
        return sum(arbitration.late for arbitration in self._arbitrations.values())

    def line_opened(self, line: LineKey, channels: Sequence[str], resubscribe: Resubscribe) -> None:
        """Expect frames of a line; `resubscribe` requests a snapshot from it."""
        self._resubscribe[line] = resubscribe
        self._data_s[line], self._alive_s[line] = -math.inf, self._clock.monotonic()
        self._first_feed[line] = _feed(line, channels[0])
        if any(map(is_steady, channels)):
            self._steady.add(line)
        self._arbitrations_on[line] = {}
        for channel in channels:
            self._expect(line, channel)
            self._subscribed.add(_feed(line, channel))

    def frames_received(
        self, line: LineKey, raws: Sequence[bytes], messages: Sequence[DataMessage | None], received_ns: int
    ) -> None:
        """Accept frames of one socket read, each with its message, None if it could not be decoded; the hot path."""
        now_s = self._clock.monotonic()
        if len(self._arrivals[-1]) >= _COMMIT_FRAMES or self._arrivals[-1].raw_bytes >= _COMMIT_BYTES:
            self._arrivals.append(Arrivals())
        arrivals = self._arrivals[-1]  # for all of them: notes made meanwhile are added to the same
        arrivals.raw_bytes += sum(map(len, raws))
        arbitrations = self._arbitrations_on[line]
        add_frame, add_message = arrivals.frames.append, arrivals.messages.append
        latest: DataMessage | None = None
        has_news = False
        traces = _new_traces(len(raws), self._random_bytes)
        for raw, message, trace in zip(raws, messages, traces, strict=True):
            frame = Frame(line.name, received_ns, trace, raw)
            if message is None:
                add_frame(frame)
                add_message(None)
                continue
            latest = message
            # Bybit may send a channel without a subscription; it is kept as well.
            arbitration = arbitrations.get(message.topic) or self._expect(line, message.topic)
            if arbitration.take_next(line, message, now_s):
                add_frame(frame)
                add_message(message)
                has_news = True
                continue
            arrivals.raw_bytes -= len(raw)
            copies, late = arbitration.copies, arbitration.late
            is_repeated = arbitration.repeats(line, message)
            self._accept(arbitration.offer(line, message, frame, now_s))
            if not is_repeated and arbitration.copies == copies and arbitration.late == late:
                has_news = True
            if arbitration.is_broken:
                self._request_snapshot(_feed(line, message.topic), arbitration, now_s)
        if latest is not None or line not in self._steady:
            self._data_s[line] = now_s
        if has_news:
            self._news_s[self._first_feed[line]] = now_s
        if latest is not None:
            self._time.plausible_ms(latest.ts, int(now_s * 1000))
        if arrivals.frames:
            self._wake()

    def line_alive(self, line: LineKey) -> None:
        """Note a read with control frames alone, such as a pong: all that Bybit had sent before has arrived."""
        # Where another line brings news, pongs without data mean that this one is stale; else the market is quiet.
        if line not in self._steady or not (self.is_behind(line) or self._awaits_snapshots(line)):
            self._alive_s[line] = self._clock.monotonic()

    def is_behind(self, line: LineKey) -> bool:
        """Return whether another line with the same channels has brought news since this one's last data."""
        return self._news_s.get(self._first_feed[line], -math.inf) > self._data_s[line]

    def _awaits_snapshots(self, line: LineKey) -> bool:
        """Return whether it is still unknown if another line brings news: it has delivered nothing yet."""
        first_feed = self._first_feed[line]
        return any(self._data_s[other] == -math.inf for other, feed in self._first_feed.items() if feed == first_feed)

    def take(self) -> Arrivals:
        """Remove and return the first arrivals, as many as suit one commit."""
        first = self._arrivals[0]
        commits = max(len(first) / _COMMIT_FRAMES, first.raw_bytes / _COMMIT_BYTES)
        if commits > _SPLIT_FACTOR and len(first) > 1:
            return first.take(max(int(len(first) / commits), 1))
        if len(self._arrivals) == 1:
            self._arrivals.append(Arrivals())
        return self._arrivals.popleft()

    def channel_confirmed(self, line: LineKey, channel: str) -> None:
        """Note that a channel is live on a line."""
        feed = _feed(line, channel)
        self._refusals.remove(feed, line.name)
        arbitration = self._arbitrations_on[line][channel]
        arbitration.confirmed(line, self._clock.monotonic())
        if arbitration.has_joined(line):
            self._note_up([feed])

    def channel_rejected(self, line: LineKey, channel: str, reason: str) -> None:
        """Note that a line does not carry a channel, or no longer."""
        self._refusals.add(_feed(line, channel), line.name, reason)
        arbitration = self._arbitrations_on[line][channel]
        self._lose(line, {channel: arbitration}, f"Bybit refuses the subscription: {reason}")
        arbitration.line_opened(line)

    def line_closed(self, line: LineKey, cause: str) -> None:
        """Hand the line's channels over to another line, or note that they have none."""
        self._lose(line, self._arbitrations_on.pop(line), f"no live line: {cause}")
        del self._data_s[line], self._alive_s[line], self._first_feed[line], self._resubscribe[line]
        self._steady.discard(line)
        self._wake()

    def _lose(self, line: LineKey, lost: Mapping[str, ChannelArbitration[LineKey, Frame]], reason: str) -> None:
        now_s = self._clock.monotonic()
        received_s = self._last_received_s(line)
        accepted: list[Offer[Frame]] = []
        down, up = [], []
        for channel, arbitration in lost.items():
            line_end = arbitration.line_closed(line, received_s=received_s, now_s=now_s)
            accepted += line_end.accepted
            if line_end.has_gap:
                down.append(_feed(line, channel))
                if arbitration.joined:
                    up.append(down[-1])
        if down:
            self.note("down", down, reason)
            self.without_line.update(down)
            if self._watcher is not None:
                self._watcher.went_down(down)
        self._accept(accepted)
        self._note_up(up)

    def has_joined(self, line: LineKey) -> bool:
        """Return whether the line could carry alone all channels that Bybit serves; it joins those that are quiet."""
        now_s = self._clock.monotonic()
        have_joined = [
            arbitration.join_if_quiet(line, now_s) or self._refusals.has(_feed(line, channel), line.name)
            for channel, arbitration in self._arbitrations_on.get(line, {}).items()
        ]
        return all(have_joined)

    def last_ms(self, feed: str) -> int | None:
        """Return Bybit's time of a feed's last frame, None before the first."""
        arbitration = self._arbitrations.get(feed)
        return None if arbitration is None else arbitration.last_ms

    def tick(self) -> None:
        """Check timeouts: stop waiting for skipped updates, request missing snapshots again."""
        now_s = self._clock.monotonic()
        # Lines whose data came before their acknowledgement, or whose acknowledgement came before they joined.
        self._note_up(
            [
                feed
                for feed in sorted(self.without_line)
                if feed in self._arbitrations and self._arbitrations[feed].is_live
            ]
        )
        for feed, arbitration in list(self._arbitrations.items()):
            self._accept(arbitration.tick(now_s))
            if arbitration.is_broken:
                self._request_snapshot(feed, arbitration, now_s)
            else:
                self._requested_s.pop(feed, None)
        if self.waiting:
            self._wake()

    def note(self, kind: NoteKind, feeds: Sequence[str], reason: str = "", *, fills_gaps: bool = False) -> None:
        """Queue a note for the journal, between the frames."""
        received_ns = self._clock.wall_ns()
        self._append(NOTE, received_ns, Note(kind, self._exchange_ms(received_ns), list(feeds), reason, fills_gaps))

    def answer_received(self, answer: RestAnswer) -> str:
        """Queue a REST answer for the journal, between the frames, and return its trace id."""
        trace = self._append(f"{REST}-{answer.part}", self._clock.wall_ns(), answer)
        return answer.trace_id or str(UUID(bytes=trace))

    def gap_fill_failed(self, feed: str, reason: str) -> None:
        """Queue a note that the gaps of a feed were not filled."""
        self.note("unhealed", [feed], reason)

    def _exchange_ms(self, wall_ns: int) -> int:
        """Return the latest estimate of Bybit's time: a gap must not end earlier than it did at Bybit."""
        by_frames_ms = int(self._clock.monotonic() * 1000) + self._time.ahead_ms
        return max(wall_ns // 1_000_000, self._now_ms(), by_frames_ms)

    def _append(self, origin: str, received_ns: int, content: Note | RestAnswer) -> bytes:
        trace = _new_traces(1, self._random_bytes)[0]
        self._arrivals[-1].add(Frame(origin, received_ns, trace, msgspec.json.encode(content)))
        self._wake()
        return trace

    def _note_up(self, feeds: Sequence[str]) -> None:
        up = [feed for feed in feeds if feed in self.without_line]
        if up:
            self.without_line.difference_update(up)
            self.note("up", up)
            if self._watcher is not None:
                self._watcher.went_up(up)

    def _last_received_s(self, line: LineKey) -> float:
        """Return when a line last proved that it has brought what Bybit had sent before."""
        return max(self._data_s[line], self._alive_s[line])

    def _accept(self, offers: Sequence[Offer[Frame]]) -> None:
        for offer in offers:
            self._arrivals[-1].add(offer.payload, offer.message)

    def _expect(self, line: LineKey, channel: str) -> ChannelArbitration[LineKey, Frame]:
        feed = _feed(line, channel)
        arbitration = self._arbitrations.get(feed)
        if arbitration is None:
            arbitration = self._arbitrations[feed] = _arbitration_for(channel)(
                self._arbitration_timing, received_s=self._last_received_s
            )
        self._arbitrations_on[line][channel] = arbitration
        arbitration.line_opened(line)
        return arbitration

    def _request_snapshot(self, feed: str, arbitration: ChannelArbitration[LineKey, Frame], now_s: float) -> None:
        line = arbitration.quickest()
        if line is None or now_s - self._requested_s.get(feed, float("-inf")) < self._snapshot_timeout_s:
            return
        if feed not in self._subscribed:  # without a subscription there is nothing to renew
            return
        self._requested_s[feed] = now_s
        log.warning("snapshot_missing", feed=feed, line=line.name)
        for key, resubscribe in list(self._resubscribe.items()):
            if key.name == line.name:  # while a connection is replaced, on the old one and on the new one
                resubscribe(feed.partition(":")[2])


def _feed(line: LineKey, channel: str) -> str:
    return f"{line.name.partition('-')[0]}:{channel}"


def _arbitration_for(channel: str) -> type[ChannelArbitration[LineKey, Frame]]:
    if channel.startswith("tickers."):
        return TickerArbitration
    # Level 1 consists of snapshots only, whose update ids need not be consecutive.
    is_numbered = channel.startswith("orderbook.") and not channel.startswith("orderbook.1.")
    return BookArbitration if is_numbered else ChannelArbitration
