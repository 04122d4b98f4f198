"""Arbitration between lines `a` and `b` of one channel; payloads are the frames' numbers."""

import pytest

from hedgelock_ingest.protocol import arbitration, frame_identities
from hedgelock_ingest.protocol.arbitration import ChannelArbitration
from hedgelock_ingest.protocol.messages import Control, decode
from hedgelock_ingest_tests.builders import AT_MS, a_liquidation, a_snapshot, a_ticker, a_trade
from hedgelock_ingest_tests.translate.account_feeder import a_wallet_frame


class Channel:
    """A channel with lines; the test sets the time."""

    def __init__(self) -> None:
        self.copy: ChannelArbitration[str, object] = ChannelArbitration()
        self.now_s = 100.0
        self.accepted: list[object] = []

    def opens(self, *lines: str, is_confirmed: bool = True) -> None:
        """Open lines one after the other."""
        for line in lines:
            self.copy.line_opened(line)
            if is_confirmed:
                self.copy.confirmed(line, self.now_s)

    def brings(self, line: str, raw: bytes, payload: object) -> None:
        """Offer one frame of a line."""
        message = decode(raw)
        assert not isinstance(message, Control)
        self.accepted += [offer.payload for offer in self.copy.offer(line, message, payload, self.now_s)]

    def brings_trades(self, line: str, *numbers: int) -> None:
        """Offer trades of a line, one in each frame."""
        for number in numbers:
            self.brings(line, a_trade(f"t{number}", ts=AT_MS + number), number)

    def ends(self, line: str, *, received_s: float | None = None) -> bool:
        """End a line; return whether that leaves a gap."""
        line_end = self.copy.line_closed(line, received_s=received_s or self.now_s, now_s=self.now_s)
        self.accepted += [offer.payload for offer in line_end.accepted]
        return line_end.has_gap


@pytest.fixture
def channel() -> Channel:
    """A channel without lines."""
    return Channel()


def test_second_copy_is_dropped_and_counted(channel: Channel) -> None:
    """Both lines bring every frame; each is accepted once."""
    channel.opens("a", "b")
    for number in (1, 2, 3):
        channel.brings_trades("a", number)
        channel.brings_trades("b", number)

    assert channel.accepted == [1, 2, 3]
    assert channel.copy.copies + channel.copy.late == 3


def test_either_line_may_be_ahead(channel: Channel) -> None:
    """Once both have joined, a frame that is new on one of them comes next."""
    channel.opens("a", "b")
    channel.brings_trades("a", 1)
    channel.brings_trades("b", 1, 2, 3)
    channel.brings_trades("a", 2, 3, 4)

    assert channel.accepted == [1, 2, 3, 4]


def test_joining_line_never_overtakes_the_live_one(channel: Channel) -> None:
    """A line that begins in the middle waits until the live line has brought the preceding frames."""
    channel.opens("a")
    channel.brings_trades("a", 1)
    channel.now_s += 60
    channel.opens("b")
    channel.brings_trades("b", 3, 4)
    assert channel.accepted == [1]

    channel.brings_trades("a", 2, 3)

    assert channel.accepted == [1, 2, 3, 4]
    assert channel.copy.has_joined("b")


def test_row_of_an_unchanged_position_proves_no_overlap(channel: Channel) -> None:
    """A frame of positions repeats unchanged ones: a line that joined by them could hide a lost frame."""
    channel.opens("a")
    channel.brings("a", _positions(BTCUSDT=1, ETHUSDT=1), 1)
    channel.now_s += 60
    channel.opens("b")
    channel.brings("b", _positions(BTCUSDT=3, ETHUSDT=1), 3)
    assert channel.accepted == [1]

    channel.brings("a", _positions(BTCUSDT=2, ETHUSDT=1), 2)
    channel.brings("a", _positions(BTCUSDT=3, ETHUSDT=1), 3)

    assert channel.accepted == [1, 2, 3]
    assert channel.copy.has_joined("b")


def test_position_that_is_sent_again_proves_no_overlap(channel: Channel) -> None:
    """If only the price has changed, Bybit sends a position again with the time of its last change."""
    channel.opens("a")
    channel.brings("a", _positions(ETHUSDT=1), 1)
    channel.now_s += 60
    channel.opens("b")

    channel.brings("b", _positions(ETHUSDT=1, at=9), 9)

    assert channel.accepted == [1]
    assert not channel.copy.has_joined("b")


def test_position_with_other_content_in_the_same_millisecond_is_no_copy(channel: Channel) -> None:
    """A take profit is set without a new time or sequence; the other line's copy is still a copy."""
    channel.opens("a", "b")
    first = _positions(ETHUSDT=1)
    second = first.replace(b'"seq":1', b'"seq":1,"takeProfit":"3.5","markPrice":"1"')
    for line in ("a", "b"):
        channel.brings(line, first, 1)
        channel.brings(line, second.replace(b'"markPrice":"1"', b'"markPrice":"2"') if line == "b" else second, 2)

    assert channel.accepted == [1, 2]


def _positions(at: int = 0, **changes: int) -> bytes:
    rows = ",".join(
        f'{{"category":"linear","symbol":"{symbol}","side":"Buy","size":"1","positionIdx":0,'
        f'"updatedTime":"{AT_MS + change}","seq":{change}}}'
        for symbol, change in changes.items()
    )
    at_ms = AT_MS + max(at, *changes.values())
    return f'{{"id":"m{at_ms}","topic":"position","creationTime":{at_ms},"data":[{rows}]}}'.encode()


def test_quiet_line_joins_by_its_first_trade(channel: Channel) -> None:
    """No frame was on its way for longer than any delay, so there is nothing to overtake."""
    channel.opens("a", "b")
    channel.brings_trades("a", 1)
    channel.now_s += 10

    channel.brings_trades("b", 2)

    assert channel.accepted == [1, 2]


def test_frame_with_one_new_trade_is_accepted(channel: Channel) -> None:
    """Bybit may batch the same trades differently on two lines; translation leaves out known ones."""
    channel.opens("a", "b")
    channel.brings("a", a_trade("t1", "t2"), "1+2")
    channel.brings("b", a_trade("t2", "t3"), "2+3")

    assert channel.accepted == ["1+2", "2+3"]


def test_equal_liquidations_of_one_frame_are_distinguished(channel: Channel) -> None:
    """Three equal rows are three liquidations: a frame with two of them does not cover the third."""
    channel.opens("a", "b")
    channel.brings("a", a_liquidation(rows=2), "two")
    channel.brings("b", a_liquidation(rows=2), "two again")
    channel.brings("b", a_liquidation(rows=3), "three")

    assert channel.accepted == ["two", "three"]


def test_line_that_only_opened_does_not_delay_the_other(channel: Channel) -> None:
    """A line whose subscription was refused brings nothing, so the other one must not wait for it."""
    channel.opens("a", is_confirmed=False)
    channel.opens("b", is_confirmed=False)

    channel.brings_trades("b", 1, 2)

    assert channel.accepted == [1, 2]
    assert not channel.copy.has_joined("a")


def test_frames_before_the_other_lines_subscription_are_kept(channel: Channel) -> None:
    """If two lines open together, the one that brings data first is live, and its frames are accepted."""
    channel.opens("a", "b")
    channel.brings_trades("b", 1, 2)
    channel.brings_trades("a", 2, 3)

    assert channel.accepted == [1, 2, 3]


def test_end_of_one_of_two_joined_lines_leaves_no_gap(channel: Channel) -> None:
    """The other line is complete by itself."""
    channel.opens("a", "b")
    channel.brings_trades("a", 1)
    channel.brings_trades("b", 1)

    assert not channel.ends("a")
    channel.brings_trades("b", 2)
    assert channel.accepted == [1, 2]


def test_end_of_the_only_line_leaves_a_gap(channel: Channel) -> None:
    """Frames that Bybit sends until the next subscription never reach us."""
    channel.opens("a")
    channel.brings_trades("a", 1)

    assert channel.ends("a")


def test_end_of_a_line_that_was_never_confirmed_leaves_no_further_gap(channel: Channel) -> None:
    """The channel had no live line before either."""
    channel.opens("a", is_confirmed=False)

    assert not channel.ends("a")


def test_successor_that_was_confirmed_long_ago_leaves_no_gap(channel: Channel) -> None:
    """It was subscribed while the other one was certainly alive, so it has brought all later frames."""
    channel.opens("a", "b")
    channel.brings_trades("a", 1)
    channel.now_s += 5
    channel.brings_trades("b", 2)

    assert not channel.ends("a")
    assert channel.accepted == [1, 2]


def test_successor_that_was_just_confirmed_leaves_a_gap(channel: Channel) -> None:
    """Frames may have been sent after the last one of the old line and before the subscription of the new one."""
    channel.opens("a")
    channel.brings_trades("a", 1)
    channel.now_s += 5
    channel.opens("b")
    channel.brings_trades("b", 3)

    assert channel.ends("a")
    assert channel.accepted == [1, 3]


def test_line_that_has_held_frames_longest_succeeds_though_it_was_never_confirmed(channel: Channel) -> None:
    """Its acknowledgements were lost; another line was opened just before the live one ended."""
    channel.opens("a")
    channel.brings_trades("a", 1)
    channel.now_s += 5
    channel.opens("b", is_confirmed=False)
    channel.brings_trades("b", 3, 4)
    channel.now_s += 5
    channel.opens("c")

    assert channel.ends("a")
    channel.brings_trades("c", 5)
    channel.brings_trades("b", 5)
    assert channel.accepted == [1, 3, 4, 5]


def test_line_that_is_not_subscribed_yet_is_no_successor(channel: Channel) -> None:
    """A line is live from its confirmation or its first frame on, not from its opening."""
    channel.opens("a")
    channel.brings_trades("a", 1)
    channel.opens("b", is_confirmed=False)

    assert channel.ends("a")
    assert not channel.copy.has_joined("b")
    channel.copy.confirmed("b", channel.now_s)
    assert channel.copy.has_joined("b")


def test_successor_with_a_frame_older_than_the_last_leaves_no_gap(channel: Channel) -> None:
    """A ticker older than the last one proves that the new line was subscribed in time; it is not accepted."""
    channel.opens("a")
    channel.brings("a", a_ticker(cs=1), 1)
    channel.brings("a", a_ticker(kind="delta", cs=3, ts=AT_MS + 300), 3)
    channel.opens("b")
    channel.brings("b", a_ticker(cs=2, ts=AT_MS + 250), "state 2")

    assert not channel.ends("a")
    channel.brings("b", a_ticker(kind="delta", cs=3, ts=AT_MS + 300), 3)
    channel.brings("b", a_ticker(kind="delta", cs=4, ts=AT_MS + 400), 4)
    assert channel.accepted == [1, 3, 4]


def test_known_snapshot_is_accepted_after_a_gap(channel: Channel) -> None:
    """Translation needs it to see that the state is correct again."""
    channel.opens("a")
    channel.brings("a", a_ticker(cs=1), 1)
    channel.ends("a")
    channel.opens("b")

    channel.brings("b", a_ticker(cs=1), "1 again")

    assert channel.accepted == [1, "1 again"]


def test_delta_without_its_snapshot_marks_the_channel_as_broken(channel: Channel) -> None:
    """After a snapshot that could not be decoded another one must be requested."""
    channel.opens("a")
    channel.brings("a", a_ticker(kind="delta", cs=2), 2)
    assert channel.copy.is_broken

    channel.brings("a", a_ticker(cs=3, ts=AT_MS + 100), 3)

    assert not channel.copy.is_broken
    assert channel.accepted == [2, 3]


def test_level_1_sent_again_is_dropped() -> None:
    """After three seconds without change Bybit repeats it with the same number."""
    channel = Channel()
    channel.opens("a")
    channel.brings("a", a_snapshot(update_id=5, depth=1), 5)
    channel.brings("a", a_snapshot(update_id=5, depth=1, ts=AT_MS + 9_000), "5 again")
    channel.brings("a", a_snapshot(update_id=8, depth=1), 8)

    assert channel.accepted == [5, 8]


def test_line_whose_held_frames_overflowed_leaves_a_gap(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of held frames is bounded; dropped ones are reported as missing."""
    monkeypatch.setattr(arbitration, "HELD_FRAMES", 3)
    channel.opens("a", "b")
    channel.brings_trades("a", 1)
    channel.now_s += 0.5
    channel.brings_trades("b", 3, 4, 5, 6)
    channel.now_s += 5

    assert channel.ends("a")
    assert channel.accepted == [1, 4, 5, 6]


def test_copies_of_dropped_names_are_still_recognised(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old identities are dropped to bound memory; their copies are recognised by time."""
    monkeypatch.setattr(frame_identities, "MIN_GENERATION_IDENTITIES", 2)
    channel.opens("a", "b")
    channel.brings_trades("a", 1)
    channel.brings_trades("b", 1)
    later = [generation * frame_identities.KNOWN_FOR_MS + n for generation in (1, 2) for n in (10, 20)]
    channel.brings_trades("a", 2, 3, *later)

    channel.brings_trades("b", 2, 3, *later)

    assert channel.accepted == [1, 2, 3, *later]
    assert channel.copy._known.has_none_of(["t1", "t2", "t3"])


def test_frames_older_than_all_remembered_ones_are_copies(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that is far behind brings frames whose identities were dropped."""
    monkeypatch.setattr(frame_identities, "MAX_GENERATION_IDENTITIES", 3)
    monkeypatch.setattr(frame_identities, "MIN_GENERATION_IDENTITIES", 0)
    channel.opens("a", "b")
    channel.brings_trades("a", 1)
    channel.brings_trades("b", 1)
    channel.brings_trades("a", 2, 3, 4, 5, 6)

    channel.brings_trades("b", 2, 3, 4, 5, 6, 7)

    assert channel.accepted == [1, 2, 3, 4, 5, 6, 7]


def test_frame_with_a_time_far_in_the_future_hides_no_later_frames(
    channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must not turn all later frames into copies when its identity is dropped."""
    monkeypatch.setattr(frame_identities, "MAX_GENERATION_IDENTITIES", 2)
    monkeypatch.setattr(frame_identities, "MIN_GENERATION_IDENTITIES", 0)
    channel.opens("a")
    channel.brings("a", a_trade("t0", ts=AT_MS * 100), 0)

    channel.brings_trades("a", 1, 2, 3, 4)

    assert channel.accepted == [0, 1, 2, 3, 4]


AHEAD_MS = [307, 907, 1_507, 3_007, 4_907]
WRONG_MS = pytest.mark.parametrize("wrong_ms", [*AHEAD_MS, 10_007, 3_600_007, 86_400_007, -10_007, -3_600_007, -AT_MS])


def an_execution(n: int, *, ts: int) -> bytes:
    """Build a frame of one execution."""
    row = (
        f'{{"symbol":"BTCUSDT","execId":"e{n}","orderId":"o","execPrice":"1","execQty":"1","execTime":"{ts}",'
        '"execFee":"0","side":"Buy"}'
    )
    return f'{{"id":"m{n}","topic":"execution","creationTime":{ts},"data":[{row}]}}'.encode()


def an_order(n: int, *, ts: int) -> bytes:
    """Build a frame of one order."""
    row = (
        f'{{"symbol":"BTCUSDT","orderId":"o{n}","orderStatus":"New","updatedTime":"{ts}","createdTime":"{ts}",'
        '"qty":"1","cumExecQty":"0"}'
    )
    return f'{{"id":"m{n}","topic":"order","creationTime":{ts},"data":[{row}]}}'.encode()


def a_position(n: int, *, ts: int) -> bytes:
    """Build a frame of one position."""
    row = (
        f'{{"category":"linear","symbol":"BTCUSDT","side":"Buy","size":"{n}","positionIdx":0,"updatedTime":"{ts}",'
        f'"seq":{n}}}'
    )
    return f'{{"id":"m{n}","topic":"position","creationTime":{ts},"data":[{row}]}}'.encode()


FRAMES = {
    "trades": lambda n, ts: a_trade(f"t{n}", ts=ts, T=ts, seq=n),
    "trades without a sequence": lambda n, ts: a_trade(f"t{n}", ts=ts, T=ts, seq=None),
    "liquidations": lambda n, ts: a_liquidation(ts=ts, T=ts, v=str(n)),
    "tickers": lambda n, ts: a_ticker(cs=100, ts=ts),
    "tickers without a sequence": lambda n, ts: a_ticker(cs=None, ts=ts),
    "executions": lambda n, ts: an_execution(n, ts=ts),
    "orders": lambda n, ts: an_order(n, ts=ts),
    "positions": lambda n, ts: a_position(n, ts=ts),
    "wallet": lambda n, ts: a_wallet_frame(ts, USDT=str(n)),
    "book": lambda n, ts: a_snapshot(update_id=n, ts=ts, depth=1),
}


@pytest.mark.parametrize("wrong_ms", AHEAD_MS)
@pytest.mark.parametrize("kind", FRAMES)
def test_handover_after_a_frame_that_is_ahead_has_a_gap_and_hides_none(
    channel: Channel, kind: str, wrong_ms: int
) -> None:
    """Line a is half open after the frame, and line b was opened too late for the next ones."""
    channel.opens("a")
    for n in range(1, 6):
        channel.now_s = 100 + n / 10
        channel.brings("a", FRAMES[kind](n, AT_MS + 100 * n + (wrong_ms if n == 5 else 0)), n)
    channel.now_s = 100.9
    channel.opens("b")
    for n in range(10, 40):
        channel.now_s = 100 + n / 10
        channel.brings("b", FRAMES[kind](n, AT_MS + 100 * n), n)
        if n == 20:
            assert channel.ends("a", received_s=100.5)

    assert channel.accepted == [*range(1, 6), *range(10, 40)]
    assert channel.copy.late == 0


def test_frame_that_is_ahead_hides_none_of_a_line_that_subscribed_during_it(channel: Channel) -> None:
    """It was open before, so that only the time at which they came shows that its frames are later."""
    channel.opens("a", "b")
    for n in range(1, 6):
        channel.brings("a", a_liquidation(ts=AT_MS + 100 * n + 3_000 * (n == 5), T=AT_MS + n, v=str(n)), n)
    for n in range(8, 40):
        channel.now_s = 100 + n / 10
        channel.brings("b", a_liquidation(ts=AT_MS + 100 * n, T=AT_MS + n - 50, v=str(n)), n)
        if n == 12:
            assert channel.ends("a", received_s=100.5)

    assert channel.accepted == [*range(1, 6), *range(8, 40)]


@WRONG_MS
@pytest.mark.parametrize("kind", FRAMES)
def test_frame_with_a_wrong_time_hides_none_after_it(channel: Channel, kind: str, wrong_ms: int) -> None:
    """It is the last one before both lines are cut, and those of the next line are new all the same."""
    channel.opens("a", "b")
    for n in range(1, 8):
        for line in ("a", "b"):
            channel.brings(line, FRAMES[kind](n, AT_MS + 100 * n + (wrong_ms if n == 7 else 0)), n)
    channel.ends("a")
    channel.ends("b")
    channel.opens("c")
    for n in range(8, 40):
        channel.brings("c", FRAMES[kind](n, AT_MS + 100 * n), n)

    assert channel.accepted == list(range(1, 40))
    assert channel.copy.late == 0


@WRONG_MS
@pytest.mark.parametrize("kind", FRAMES)
def test_frame_with_a_wrong_time_is_accepted_once_amid_others(
    channel: Channel, monkeypatch: pytest.MonkeyPatch, kind: str, wrong_ms: int
) -> None:
    """Identities were dropped before, so that a time in the past could mean a line far behind."""
    monkeypatch.setattr(frame_identities, "MIN_GENERATION_IDENTITIES", 2)
    channel.opens("a", "b")
    for n in range(1, 200):
        for line in ("a", "b") if n % 3 else ("b", "a"):
            channel.brings(line, FRAMES[kind](n, AT_MS + 1_000 * n + (wrong_ms if n % 50 == 0 else 0)), n)

    assert channel.accepted == list(range(1, 200))
    assert channel.copy._known.horizon_ms > 0


def test_frame_with_a_wrong_time_does_not_make_old_frames_new(
    channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line far behind brings copies whose identities were dropped, and the one with the wrong time among them."""
    monkeypatch.setattr(frame_identities, "MIN_GENERATION_IDENTITIES", 2)
    channel.opens("a", "b")
    frames = [a_trade(f"t{n}", ts=AT_MS + 1_000 * n - (3_600_000 if n == 20 else 0), seq=n) for n in range(60)]
    for line in ("a", "b"):
        channel.brings(line, frames[0], 0)
    for line in ("a", "b"):
        for n, frame in enumerate(frames[1:], 1):
            channel.brings(line, frame, n)

    assert channel.accepted == list(range(60))
