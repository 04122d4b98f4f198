"""The receiver: two lines become one sequence to be journalled, with notes where it has gaps."""

import json
import uuid
from collections import defaultdict
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from hedgelock_ingest.clock import SystemClock
from hedgelock_ingest.pipeline.receiver import Receiver, new_trace
from hedgelock_ingest.protocol.frames import NOTE, Frame
from hedgelock_ingest.protocol.line_events import LineKey
from hedgelock_ingest.translate.translator import Translator
from hedgelock_ingest_tests.builders import (
    AT_MS,
    LINEAR_FIELDS,
    a_delta,
    a_liquidation,
    a_snapshot,
    a_spot_ticker,
    a_ticker,
    a_trade,
    messages_of,
)
from hedgelock_ingest_tests.pipeline.recorded_arrivals import RecordedArrivals

BOOK, TICKER, TRADES = "orderbook.50.BTCUSDT", "tickers.BTCUSDT", "publicTrade.BTCUSDT"
LIQUIDATIONS = "allLiquidation.BTCUSDT"
CHANNELS = (TICKER, TRADES, BOOK, LIQUIDATIONS)


class ManualClock(SystemClock):
    """A monotonic clock that only the test moves; the wall clock stands still."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def monotonic(self) -> float:
        """Return the seconds set by the test."""
        return self.now_s

    def wall_ns(self) -> int:
        """Return a constant time."""
        return AT_MS * 1_000_000


class Wired:
    """A receiver with two lines that record its requests."""

    def __init__(self, clock: ManualClock, *, bybits_ms: int = 0) -> None:
        self.clock = clock
        feeds = [f"linear:{channel}" for channel in CHANNELS]
        self.receiver = Receiver(feeds, lambda: None, clock=clock, now_ms=lambda: bybits_ms)
        self.recorded = RecordedArrivals(self.receiver)
        self.resubscribed: list[tuple[str, str]] = []

    def opens(self, *letters: str, generation: int = 1) -> None:
        """Open lines and have all their channels confirmed."""
        for letter in letters:
            self.open_unconfirmed(letter, generation)
        for letter in letters:
            for channel in CHANNELS:
                self.receiver.channel_confirmed(key(letter, generation), channel)

    def open_unconfirmed(self, letter: str, generation: int = 1) -> None:
        """Open a line that records requests for a snapshot; no channel is confirmed."""
        line = key(letter, generation)
        self.receiver.line_opened(line, CHANNELS, lambda channel: self.resubscribed.append((line.name, channel)))

    def deliver(self, letter: str, *raws: bytes, generation: int = 1) -> None:
        """Pass frames of one read of a line."""
        self.receiver.frames_received(key(letter, generation), raws, messages_of(raws), AT_MS * 1_000_000)

    @property
    def frames(self) -> list[Frame]:
        """All frames taken."""
        return self.recorded.arrivals.frames

    @property
    def notes(self) -> list[dict[str, object]]:
        """The notes among the arrivals."""
        return [json.loads(frame.raw) for frame in self.frames if frame.origin == NOTE]

    @property
    def raws(self) -> list[tuple[str, bytes]]:
        """The frames among the arrivals, with the letter of their line."""
        return [(frame.origin[-1], frame.raw) for frame in self.frames if frame.origin != NOTE]


@pytest.fixture
def clock() -> ManualClock:
    """The receiver's time."""
    return ManualClock()


@pytest.fixture
def wired(clock: ManualClock) -> Wired:
    """A receiver without open lines."""
    return Wired(clock)


def key(letter: str, generation: int = 1) -> LineKey:
    """Name a connection of line a or b."""
    return LineKey(f"linear-{letter}", generation)


def test_first_copy_of_each_frame_is_kept_with_its_message(wired: Wired) -> None:
    """Each frame is decoded once; the translation uses the message."""
    wired.opens("a", "b")
    wired.deliver("a", a_trade("t1"), a_trade("t2"))
    wired.deliver("b", a_trade("t1"), a_trade("t2"), a_trade("t3"))

    assert wired.raws == [("a", a_trade("t1")), ("a", a_trade("t2")), ("b", a_trade("t3"))]
    assert all(message is not None for frame, message in wired.recorded.arrivals if frame.origin != NOTE)
    assert wired.receiver.copies == 2


def test_each_lines_copy_of_a_bad_frame_is_kept(wired: Wired) -> None:
    """The receiver cannot know which copy is damaged."""
    wired.opens("a", "b")
    wired.deliver("a", b"{bad")
    wired.deliver("b", b"{bad")

    assert wired.raws == [("a", b"{bad"), ("b", b"{bad")]


def test_channel_is_noted_up_once_and_down_with_its_last_line(wired: Wired) -> None:
    """The notes are in the journal at the place of the gap; the cause is the reason."""
    wired.opens("a", "b")
    assert [(note["note"], note["channels"]) for note in wired.notes] == [("up", [f"linear:{c}"]) for c in CHANNELS]
    wired.deliver("a", a_trade("t1"))
    wired.deliver("b", a_trade("t1"))
    wired.clock.now_s += 5
    wired.deliver("a", a_trade("t2", ts=AT_MS + 5_000))

    wired.receiver.line_closed(key("a"), "lost")
    assert len(wired.notes) == len(CHANNELS)
    wired.receiver.line_closed(key("b"), "no_pong")

    down = wired.notes[-1]
    assert (down["note"], down["reason"], down["at_ms"]) == ("down", "no live line: no_pong", AT_MS + 5_000)
    assert down["channels"] == [f"linear:{channel}" for channel in CHANNELS]
    assert wired.receiver.without_line == {f"linear:{channel}" for channel in CHANNELS}


@pytest.mark.parametrize(("bybits_ms", "noted_ms"), [(0, AT_MS + 37_000), (AT_MS + 40_000, AT_MS + 40_000)])
def test_notes_follow_bybits_clock_when_ours_is_behind(clock: ManualClock, bybits_ms: int, noted_ms: int) -> None:
    """A gap must not end earlier than at Bybit: later losses would not be recorded."""
    wired = Wired(clock, bybits_ms=bybits_ms)
    wired.open_unconfirmed("a")
    for number in (1, 2):  # the first alone may have a wrong time
        wired.deliver("a", a_trade(f"t{number}", ts=AT_MS + 30_000))
    clock.now_s += 7

    wired.receiver.channel_confirmed(key("a"), TRADES)

    assert wired.notes[-1]["at_ms"] == noted_ms


def test_line_that_takes_over_too_late_leaves_a_gap_before_its_frames(wired: Wired) -> None:
    """Down, then the held frames, then up: in this order the translation closes the gap where it ends."""
    wired.opens("a")
    wired.deliver("a", a_trade("t1"))
    wired.clock.now_s += 60
    wired.opens("b")
    wired.deliver("b", a_trade("t5", ts=AT_MS + 60_000))
    wired.recorded.forget()

    wired.receiver.line_closed(key("a"), "stale")

    assert [frame.origin for frame in wired.frames] == [NOTE, "linear-b", NOTE]
    assert [note["note"] for note in wired.notes] == ["down", "up"]
    assert wired.receiver.without_line == set()


def test_line_that_only_answers_pings_does_not_confirm_data(wired: Wired) -> None:
    """The other line was opened while it was silent already: frames between the two are lost."""
    wired.opens("a", "b")
    wired.deliver("a", a_trade("t1"))
    wired.deliver("b", a_trade("t1"))
    wired.receiver.line_closed(key("b"), "lost")
    wired.clock.now_s += 5
    wired.opens("b", generation=2)
    wired.clock.now_s += 3
    wired.receiver.line_alive(key("a"))
    wired.deliver("b", a_trade("t3", ts=AT_MS + 8_000), generation=2)
    assert wired.raws == [("a", a_trade("t1"))]

    wired.receiver.line_closed(key("a"), "stale")

    noted = [note for note in wired.notes if TRADES in str(note["channels"])]
    assert [note["note"] for note in noted] == ["up", "down", "up"]
    assert wired.raws[-1] == ("b", a_trade("t3", ts=AT_MS + 8_000))


def test_line_that_never_delivers_data_leaves_a_gap(wired: Wired) -> None:
    """The feed was up by its confirmation, and frames until the next line opened are lost."""
    wired.opens("a")
    wired.clock.now_s += 0.5
    wired.opens("b")
    wired.deliver("b", a_trade("t3", ts=AT_MS + 600))
    assert wired.raws == []

    wired.receiver.line_closed(key("a"), "stale")

    noted = [note for note in wired.notes if TRADES in str(note["channels"])]
    assert [note["note"] for note in noted] == ["up", "down", "up"]
    assert wired.raws == [("b", a_trade("t3", ts=AT_MS + 600))]


def test_feed_comes_up_though_its_line_was_confirmed_before_it_joined(wired: Wired) -> None:
    """A line whose acknowledgements were lost runs until the next one has joined it, and is closed then."""
    wired.open_unconfirmed("a")
    wired.deliver("a", a_trade("t1"))
    wired.opens("b")
    wired.deliver("a", a_trade("t2"))
    wired.deliver("b", a_trade("t2"))
    assert f"linear:{TRADES}" in wired.receiver.without_line

    wired.receiver.tick()

    assert f"linear:{TRADES}" not in wired.receiver.without_line
    assert wired.notes[-1]["channels"] == [f"linear:{TRADES}"]


def test_line_that_is_replaced_hands_over_without_a_gap(wired: Wired) -> None:
    """Rotation: the next connection of the same line is open beside the old one until it has joined."""
    wired.opens("a")
    wired.deliver("a", a_snapshot(), a_ticker(), a_trade("t1"), a_liquidation())
    wired.clock.now_s += 60
    wired.opens("a", generation=2)
    assert not wired.receiver.has_joined(key("a", 2))
    wired.deliver("a", a_snapshot(), a_ticker(), generation=2)
    wired.clock.now_s += 5
    wired.deliver("a", a_trade("t2"), a_liquidation(rows=2))
    wired.deliver("a", a_trade("t2"), a_liquidation(rows=2), generation=2)
    assert wired.receiver.has_joined(key("a", 2))
    wired.recorded.forget()

    wired.receiver.line_closed(key("a"), "rotated")
    wired.deliver("a", a_trade("t3"), generation=2)

    assert wired.raws == [("a", a_trade("t3"))]
    assert wired.notes == []


def test_broken_book_requests_its_snapshot_on_both_connections_of_a_line_under_replacement(wired: Wired) -> None:
    """The old connection may close before its snapshot comes."""
    wired.opens("a")
    wired.opens("a", generation=2)
    wired.deliver("a", a_ticker(), a_snapshot(update_id=6), a_delta(update_id=8), a_delta(update_id=9))
    assert wired.resubscribed == [("linear-a", BOOK)] * 2


def test_refused_symbol_is_logged_once_by_all_lines_and_channels(wired: Wired) -> None:
    """It is tried again every minute for as long as the process runs."""
    with capture_logs() as logs:
        wired.open_unconfirmed("a")
        wired.open_unconfirmed("b")
        for letter in "abab":
            for channel in (TICKER, BOOK):
                wired.receiver.channel_rejected(key(letter), channel, "Invalid symbol")
        assert wired.receiver.refused == {f"linear:{channel}": "Invalid symbol" for channel in (TICKER, BOOK)}
        for letter in "ab":
            wired.receiver.channel_confirmed(key(letter), TICKER)

    assert [log["event"] for log in logs] == ["channel_rejected", "channel_accepted"]
    assert set(wired.receiver.refused) == {f"linear:{BOOK}"}


def test_channel_that_is_refused_after_it_was_live_has_a_gap(wired: Wired) -> None:
    """A book that requests its snapshot anew may find its symbol delisted; the other channels of the line go on."""
    wired.opens("a")
    wired.deliver("a", a_snapshot(), a_delta(update_id=9))
    assert wired.resubscribed == [("linear-a", BOOK)]
    wired.receiver.channel_rejected(key("a"), BOOK, "Invalid symbol")

    assert wired.receiver.without_line == {f"linear:{BOOK}"}
    wired.clock.now_s += 60.0
    wired.receiver.tick()
    assert len(wired.resubscribed) == 1
    assert wired.receiver.has_joined(key("a"))

    wired.receiver.channel_confirmed(key("a"), BOOK)
    wired.deliver("a", a_snapshot(update_id=20))
    assert wired.receiver.without_line == set()
    notes = [note["note"] for note in wired.notes if f"linear:{BOOK}" in str(note["channels"])]
    assert notes == ["up", "down", "up"]


def test_channel_that_one_line_is_refused_stays_live_on_the_other(wired: Wired) -> None:
    """Bybit serves it, so there is no gap, and nothing to correct."""
    wired.opens("a", "b")
    wired.deliver("a", a_snapshot())
    wired.deliver("b", a_snapshot())
    before = len(wired.notes)
    wired.receiver.channel_rejected(key("a"), BOOK, "args length")

    assert len(wired.notes) == before
    assert wired.receiver.refused == {}


def test_broken_book_requests_its_snapshot_repeatedly(wired: Wired) -> None:
    """It is requested at once, then at intervals until it has arrived; other channels are not affected."""
    wired.opens("a")
    wired.deliver("a", a_ticker(), a_snapshot(update_id=6), a_delta(update_id=8), a_delta(update_id=9))
    assert wired.resubscribed == [("linear-a", BOOK)]

    wired.clock.now_s += 1.0
    wired.receiver.tick()
    assert wired.resubscribed == [("linear-a", BOOK)] * 2

    wired.deliver("a", a_snapshot(update_id=20))
    wired.clock.now_s += 1.0
    wired.receiver.tick()
    assert wired.resubscribed == [("linear-a", BOOK)] * 2


def test_skipped_update_is_given_up_without_further_frames(wired: Wired) -> None:
    """A book that falls silent after a skip must not withhold its last frame."""
    wired.opens("a", "b")
    wired.deliver("a", a_snapshot(update_id=6))
    wired.deliver("b", a_snapshot(update_id=6))
    wired.deliver("a", a_delta(update_id=8))
    wired.clock.now_s += 1

    wired.receiver.tick()

    assert wired.raws[-1] == ("a", a_delta(update_id=8))


def test_frame_of_a_channel_without_subscription_is_kept(wired: Wired) -> None:
    """It is journalled; only a snapshot is not requested, since there is no subscription to renew."""
    wired.opens("a", "b")
    other = a_delta(symbol="ETHUSDT")
    wallet = b'{"id":"1","topic":"wallet","creationTime":1700034722104,"data":[{"coin":[]}]}'
    wired.deliver("a", other, wallet)

    assert wired.raws == [("a", other), ("a", wallet)]
    assert wired.resubscribed == []
    wired.receiver.line_closed(key("a"), "lost")
    wired.receiver.line_closed(key("b"), "lost")


def test_bytes_are_counted_of_what_is_to_be_journalled(wired: Wired) -> None:
    """Copies do not count; held frames, frames that cannot be decoded, and notes do."""
    wired.opens("a", "b")
    frames = [a_snapshot(update_id=6), a_delta(update_id=7), a_ticker(), a_trade("t1"), b"?"]
    wired.deliver("a", *frames)
    wired.deliver("b", *frames)
    wired.deliver("b", a_delta(update_id=8), a_trade("t2"))
    for letter in "ab":
        wired.receiver.line_closed(key(letter), "lost")

    assert wired.recorded.arrivals.raw_bytes == sum(len(frame.raw) for frame in wired.frames)


@given(reads=st.lists(st.tuples(st.integers(1, 1_500), st.sampled_from([1, 4_000, 200_000])), min_size=1, max_size=5))
def test_arrivals_are_taken_in_parts_of_bounded_size(reads: list[tuple[int, int]]) -> None:
    """A commit that is too large would block the disk; every frame comes once and in order, reads stay complete."""
    wired = Wired(ManualClock())
    wired.opens("a")
    wired.recorded.forget()
    many_frames, many_bytes = 1_000, 4 * 1024 * 1024
    expected: list[list[bytes]] = [[]]
    for number, (count, size) in enumerate(reads):
        frames = [b"%d %d" % (number, n) + b"?" * size for n in range(min(count, 2 * many_bytes // size))]
        wired.deliver("a", *frames)
        if len(expected[-1]) >= many_frames or sum(map(len, expected[-1])) >= many_bytes:
            expected.append([])
        expected[-1] += frames

    assert wired.receiver.waiting == sum(map(len, expected))
    given_up = [wired.receiver.take() for _ in expected]
    assert [[frame.raw for frame in each.frames] for each in given_up] == expected
    assert [each.raw_bytes for each in given_up] == [sum(map(len, raws)) for raws in expected]
    assert wired.receiver.waiting == 0


def test_many_frames_released_at_once_are_taken_in_parts() -> None:
    """A line that joins may have held thousands on each channel; one commit of all would block the stream."""
    wired = Wired(ManualClock())
    wired.opens("a")
    wired.recorded.forget()
    frames = [b"%d" % n for n in range(9_500)]
    wired.deliver("a", *frames)

    pieces = []
    while wired.receiver.waiting:
        pieces.append(wired.receiver.take())
    assert max(map(len, pieces)) <= 4_000
    assert [frame.raw for piece in pieces for frame in piece.frames] == frames


def test_note_between_frames_keeps_its_place_however_much_waits(wired: Wired) -> None:
    """Frames after it must not be journalled before it, also when they go to the next commit."""
    wired.open_unconfirmed("a")
    wired.deliver("a", *[b"?"] * 999)
    wired.deliver("a", b"before")
    wired.receiver.channel_confirmed(key("a"), TRADES)
    wired.deliver("a", b"behind")

    assert [frame.raw for frame in wired.frames if frame.origin != NOTE][-2:] == [b"before", b"behind"]
    assert [frame.origin for frame in wired.frames][-3:] == ["linear-a", NOTE, "linear-a"]


def test_each_frame_has_a_unique_trace_id() -> None:
    """A random UUID of version 4 (RFC 9562), as all tracing tools expect."""
    wired = Wired(ManualClock())
    wired.opens("a")
    wired.deliver("a", *[a_trade(f"t{n}") for n in range(50)])
    traces = [frame.trace for frame in wired.frames] + [new_trace() for _ in range(50)]

    parsed = [uuid.UUID(bytes=trace) for trace in traces]
    assert {(each.version, each.variant) for each in parsed} == {(4, uuid.RFC_4122)}
    assert len(set(parsed)) == len(parsed)
    differing = [any(trace[place] != traces[0][place] for trace in traces) for place in range(16)]
    assert all(differing)


def a_session(length: int) -> list[bytes]:
    """Return the frames of a connection: the initial states, then frames of all channels by turns."""
    frames = [a_snapshot(update_id=6, ts=AT_MS), a_ticker(), a_trade("t0", seq=1), a_liquidation()]
    for n in range(1, length):
        at_ms = AT_MS + 20 * n
        frames += [
            a_delta(update_id=6 + n, ts=at_ms, bids=[(f"61873.{n % 7}0", f"{n % 3}")]),
            a_ticker(kind="delta", cs=100 + n, ts=at_ms, fields={"lastPrice": f"61874.{n}"}),
            a_trade(f"t{n}", f"u{n}", ts=at_ms, seq=1 + n),
            a_liquidation(rows=1 + n % 2, ts=at_ms, T=at_ms - 100),
        ]
    return frames


def published(wired: Wired) -> dict[tuple[str, bytes], list[dict[str, object]]]:
    """Return the records for Kafka, by topic and key, without fields that differ between receptions."""
    translator = Translator()
    found = defaultdict(list)
    for position, (frame, message) in enumerate(wired.recorded.arrivals, 1):
        for record in translator.translate(position, frame, message):
            value = json.loads(record.value) | {"trace_id": None, "exchange_ms": record.exchange_ms}
            found[record.topic.value, record.key].append(value)
    return dict(found)


def published_by_one_line(frames: Sequence[bytes]) -> dict[tuple[str, bytes], list[dict[str, object]]]:
    """Return the records of one line that delivers all frames."""
    wired = Wired(ManualClock())
    wired.opens("a")
    wired.deliver("a", *frames)
    return published(wired)


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(1, 12),
    reads=st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 9)), max_size=60),
    ending=st.sampled_from(["", "a", "b"]),
)
def test_two_lines_give_the_records_of_one(length: int, reads: list[tuple[str, int]], ending: str) -> None:
    """For any split of frames over reads and lines, also if one line ends: same records, same order."""
    frames = a_session(length)
    wired = Wired(ManualClock())
    wired.opens("a", "b")
    left = {"a": list(frames), "b": list(frames)}
    for letter in "ab":
        wired.deliver(letter, *left[letter][:4])
        del left[letter][:4]
    for number, (letter, count) in enumerate(reads):
        if left.get(letter):
            wired.deliver(letter, *left[letter][:count])
            del left[letter][:count]
        if number == len(reads) // 2 and ending:
            wired.receiver.line_closed(key(ending), "lost")
            del left[ending]
    for letter, rest in left.items():
        wired.deliver(letter, *rest)

    assert published(wired) == published_by_one_line(frames)


# Quiet markets


def test_quiet_line_that_answers_pings_hands_over_without_a_gap(wired: Wired) -> None:
    """The successor's snapshots show nothing new, so the silence is the market's, and the pong proves the old line."""
    wired.opens("a")
    wired.deliver("a", a_snapshot(), a_ticker(), a_trade("t1"), a_liquidation())
    wired.clock.now_s += 10
    wired.opens("a", generation=2)
    wired.deliver("a", a_snapshot(), a_ticker(ts=AT_MS + 10_000), generation=2)
    wired.clock.now_s += 5
    assert not wired.receiver.has_joined(key("a", 2))
    wired.receiver.line_alive(key("a"))

    assert wired.receiver.has_joined(key("a", 2))
    assert not wired.receiver.is_behind(key("a"))
    wired.recorded.forget()
    wired.receiver.line_closed(key("a"), "rotated")
    wired.deliver("a", a_trade("t2"), a_ticker(kind="delta", cs=101, ts=AT_MS + 16_000), generation=2)

    assert wired.notes == []
    assert [raw for _, raw in wired.raws] == [a_trade("t2"), a_ticker(kind="delta", cs=101, ts=AT_MS + 16_000)]


SPOT_FELL: dict[str, object] = {
    "volume24h": "6780.7",
    "turnover24h": "141946520",
    "lowPrice24h": "20600",
    "price24hPcnt": "0.0190",
}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([a_ticker()], a_ticker(cs=101, ts=AT_MS + 10_000)),
        (
            [a_ticker(), a_ticker(kind="delta", cs=105, ts=AT_MS + 90, fields={"markPrice": "1"})],
            a_ticker(cs=120, ts=AT_MS + 10_000, fields={**LINEAR_FIELDS, "markPrice": "1"}),
        ),
        ([a_spot_ticker()], a_spot_ticker(cs=101, ts=AT_MS + 10_000)),
        ([a_spot_ticker()], a_spot_ticker(cs=101, ts=AT_MS + 10_000, fields=SPOT_FELL)),
    ],
    ids=["later sequence", "merged", "spot", "rolling values"],
)
def test_snapshot_of_a_ticker_that_has_not_changed_is_no_news(wired: Wired, before: list[bytes], after: bytes) -> None:
    """Its cross sequence advances with other channels, and trades leave the last day, while the market is quiet."""
    wired.opens("a")
    wired.deliver("a", a_snapshot(), *before, a_trade("t1"), a_liquidation())
    wired.clock.now_s += 10
    wired.opens("a", generation=2)
    wired.deliver("a", a_snapshot(), after, generation=2)
    wired.clock.now_s += 5
    assert not wired.receiver.is_behind(key("a"))
    assert not wired.receiver.has_joined(key("a", 2))
    wired.receiver.line_alive(key("a"))
    assert wired.receiver.has_joined(key("a", 2))
    wired.recorded.forget()

    wired.receiver.line_closed(key("a"), "rotated")
    next_ticker = a_ticker(kind="delta", cs=130, ts=AT_MS + 16_000)
    wired.deliver("a", next_ticker, generation=2)

    assert wired.notes == []
    assert [raw for _, raw in wired.raws] == [next_ticker]


def test_ticker_of_a_line_that_was_open_before_is_news_though_only_rolling_values_differ(wired: Wired) -> None:
    """Bybit sent it to all lines: one that lacks it is stale."""
    wired.opens("a", "b")
    for letter in "ab":
        wired.deliver(letter, a_snapshot(), a_spot_ticker(), a_trade("t1"), a_liquidation())
    wired.clock.now_s += 10
    wired.deliver("b", a_spot_ticker(cs=101, ts=AT_MS + 10_000, fields=SPOT_FELL))

    assert wired.receiver.is_behind(key("a"))


@pytest.mark.parametrize(
    "news",
    [
        [a_snapshot(update_id=9), a_ticker()],
        [a_snapshot(), a_ticker(cs=120, ts=AT_MS + 10_000, fields={**LINEAR_FIELDS, "markPrice": "1"})],
        [a_snapshot(), a_ticker(cs=120, ts=AT_MS + 10_000, fields={**LINEAR_FIELDS, "volume24h": "9999999999"})],
        [a_snapshot(), a_ticker(ts=AT_MS + 10_000, fields={"lastPrice": "1"})],
        [a_snapshot(), a_ticker(), a_trade("t2")],
        [],
    ],
    ids=["book", "ticker", "volume", "ticker of the same sequence", "trade", "no snapshots yet"],
)
def test_pongs_of_a_line_that_lacks_news_prove_nothing(wired: Wired, news: list[bytes]) -> None:
    """Its subscriptions are dead: what came between the two lines is a gap, which the note opens."""
    wired.opens("a")
    wired.deliver("a", a_snapshot(), a_ticker(), a_trade("t1"), a_liquidation())
    wired.clock.now_s += 10
    wired.opens("a", generation=2)
    if news:
        wired.deliver("a", *news, generation=2)
    wired.clock.now_s += 5
    wired.receiver.line_alive(key("a"))

    assert wired.receiver.is_behind(key("a")) == bool(news)
    assert not wired.receiver.has_joined(key("a", 2))
    wired.receiver.line_closed(key("a"), "stale")

    assert f"linear:{LIQUIDATIONS}" in str([note for note in wired.notes if note["note"] == "down"])


def test_line_that_lags_is_not_behind_once_it_has_caught_up(wired: Wired) -> None:
    """The other one is a little ahead with each frame."""
    wired.opens("a", "b")
    for letter in "ab":
        wired.deliver(letter, a_snapshot(), a_ticker(), a_trade("t1"), a_liquidation())
    wired.clock.now_s += 20
    wired.deliver("b", a_trade("t2"))
    assert wired.receiver.is_behind(key("a"))

    wired.clock.now_s += 0.1
    wired.deliver("a", a_trade("t2"))

    assert not wired.receiver.is_behind(key("a"))
    assert not wired.receiver.is_behind(key("b"))


def test_line_with_other_channels_is_behind_nobody() -> None:
    """Many symbols are split over lines, and one of them may be quiet alone."""
    clock = ManualClock()
    receiver = Receiver([f"linear:{channel}" for channel in CHANNELS], lambda: None, clock=clock)
    quiet, busy = key("a"), LineKey("linear-a2", 1)
    receiver.line_opened(quiet, [BOOK], lambda channel: None)
    receiver.line_opened(busy, [TRADES], lambda channel: None)
    receiver.frames_received(quiet, [a_snapshot()], messages_of([a_snapshot()]), 0)
    clock.now_s += 10
    receiver.frames_received(busy, [a_trade()], messages_of([a_trade()]), 0)

    assert not receiver.is_behind(quiet)


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("wrong_ms", [10_000, 3_600_000, -3_600_000])
def test_notes_do_not_follow_a_frame_with_a_wrong_time(wired: Wired, wrong_ms: int, place: int) -> None:
    """A gap would end an hour after the line went live."""
    wired.opens("a")
    times_ms = [AT_MS, AT_MS]
    times_ms[place] += wrong_ms
    for number, at_ms in enumerate(times_ms):
        wired.deliver("a", a_trade(f"t{number}", ts=at_ms))
    wired.clock.now_s += 2

    wired.receiver.line_closed(key("a"), "lost")

    assert wired.notes[-1]["at_ms"] == AT_MS + 2_000
