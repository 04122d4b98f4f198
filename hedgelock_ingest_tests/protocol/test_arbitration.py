"""First copy wins, told in small stories about lines `a` and `b`; payloads are the frames' numbers."""

import pytest

from hedgelock_ingest.protocol import arbitration, seen_names
from hedgelock_ingest.protocol.arbitration import FirstCopy
from hedgelock_ingest.protocol.messages import Control, decode
from hedgelock_ingest_tests.builders import AT_MS, a_liquidation, a_snapshot, a_ticker, a_trade


class Story:
    """A channel of trades with two lines, at a time that the story tells."""

    def __init__(self) -> None:
        self.copy: FirstCopy[str, object] = FirstCopy()
        self.now_s = 100.0
        self.accepted: list[object] = []

    def opens(self, *lines: str, is_confirmed: bool = True) -> None:
        """Open lines one after the other."""
        for line in lines:
            self.copy.line_opened(line)
            if is_confirmed:
                self.copy.confirmed(line, self.now_s)

    def brings(self, line: str, raw: bytes, payload: object) -> None:
        """Let a line bring any frame."""
        message = decode(raw)
        assert not isinstance(message, Control)
        self.accepted += [offer.payload for offer in self.copy.offer(line, message, payload, self.now_s)]

    def brings_trades(self, line: str, *numbers: int) -> None:
        """Let a line bring trades, each in a frame of its own."""
        for number in numbers:
            self.brings(line, a_trade(f"t{number}", ts=AT_MS + number), number)

    def ends(self, line: str) -> bool:
        """End a line; tell whether that leaves a hole."""
        handover = self.copy.line_closed(line, received_s=self.now_s, now_s=self.now_s)
        self.accepted += [offer.payload for offer in handover.accepted]
        return handover.has_gap


@pytest.fixture
def story() -> Story:
    """A story that has not begun."""
    return Story()


def test_second_copy_is_dropped_and_counted(story: Story) -> None:
    """Both lines bring everything; each frame goes on once."""
    story.opens("a", "b")
    for number in (1, 2, 3):
        story.brings_trades("a", number)
        story.brings_trades("b", number)

    assert story.accepted == [1, 2, 3]
    assert story.copy.copies + story.copy.late == 3


def test_either_line_may_be_the_quicker(story: Story) -> None:
    """Once both have joined, what is new on one of them comes next."""
    story.opens("a", "b")
    story.brings_trades("a", 1)
    story.brings_trades("b", 1, 2, 3)
    story.brings_trades("a", 2, 3, 4)

    assert story.accepted == [1, 2, 3, 4]


def test_joining_line_never_overtakes_the_live_one(story: Story) -> None:
    """A line that begins in the middle waits until the live line has brought what came before."""
    story.opens("a")
    story.brings_trades("a", 1)
    story.now_s += 60
    story.opens("b")
    story.brings_trades("b", 3, 4)
    assert story.accepted == [1]

    story.brings_trades("a", 2, 3)

    assert story.accepted == [1, 2, 3, 4]
    assert story.copy.has_joined("b")


def test_row_of_an_unchanged_position_proves_no_overlap(story: Story) -> None:
    """A frame of positions repeats those that did not change: a line that joins by them could hide a lost frame."""
    story.opens("a")
    story.brings("a", _positions(BTCUSDT=1, ETHUSDT=1), 1)
    story.now_s += 60
    story.opens("b")
    story.brings("b", _positions(BTCUSDT=3, ETHUSDT=1), 3)
    assert story.accepted == [1]

    story.brings("a", _positions(BTCUSDT=2, ETHUSDT=1), 2)
    story.brings("a", _positions(BTCUSDT=3, ETHUSDT=1), 3)

    assert story.accepted == [1, 2, 3]
    assert story.copy.has_joined("b")


def test_position_that_is_sent_again_proves_no_overlap(story: Story) -> None:
    """Bybit also sends positions of which only the price has changed, with the time of their last change."""
    story.opens("a")
    story.brings("a", _positions(ETHUSDT=1), 1)
    story.now_s += 60
    story.opens("b")

    story.brings("b", _positions(ETHUSDT=1, at=9), 9)

    assert story.accepted == [1]
    assert not story.copy.has_joined("b")


def _positions(at: int = 0, **changes: int) -> bytes:
    rows = ",".join(
        f'{{"category":"linear","symbol":"{symbol}","side":"Buy","size":"1","positionIdx":0,'
        f'"updatedTime":"{AT_MS + change}","seq":{change}}}'
        for symbol, change in changes.items()
    )
    at_ms = AT_MS + max(at, *changes.values())
    return f'{{"id":"m{at_ms}","topic":"position","creationTime":{at_ms},"data":[{rows}]}}'.encode()


def test_quiet_line_joins_by_its_first_trade(story: Story) -> None:
    """With nothing on its way for longer than any delay there is nothing to overtake."""
    story.opens("a", "b")
    story.brings_trades("a", 1)
    story.now_s += 10

    story.brings_trades("b", 2)

    assert story.accepted == [1, 2]


def test_frame_with_one_new_trade_is_accepted(story: Story) -> None:
    """Bybit may pack the same trades differently for two lines; the translation takes out what is known."""
    story.opens("a", "b")
    story.brings("a", a_trade("t1", "t2"), "1+2")
    story.brings("b", a_trade("t2", "t3"), "2+3")

    assert story.accepted == ["1+2", "2+3"]


def test_equal_liquidations_of_one_frame_are_told_apart(story: Story) -> None:
    """Three equal rows are three liquidations: a frame with two of them does not stand for the third."""
    story.opens("a", "b")
    story.brings("a", a_liquidation(rows=2), "two")
    story.brings("b", a_liquidation(rows=2), "two again")
    story.brings("b", a_liquidation(rows=3), "three")

    assert story.accepted == ["two", "three"]


def test_line_that_only_opened_does_not_hold_up_the_other(story: Story) -> None:
    """A line whose subscription was refused brings nothing, so the other one must not wait for it."""
    story.opens("a", is_confirmed=False)
    story.opens("b", is_confirmed=False)

    story.brings_trades("b", 1, 2)

    assert story.accepted == [1, 2]
    assert not story.copy.has_joined("a")


def test_frames_before_the_other_lines_subscription_are_kept(story: Story) -> None:
    """Of two lines that open together the one that brings data first is the live one: its frames reached us."""
    story.opens("a", "b")
    story.brings_trades("b", 1, 2)
    story.brings_trades("a", 2, 3)

    assert story.accepted == [1, 2, 3]


def test_end_of_one_of_two_joined_lines_is_no_hole(story: Story) -> None:
    """That is what the second line is for."""
    story.opens("a", "b")
    story.brings_trades("a", 1)
    story.brings_trades("b", 1)

    assert not story.ends("a")
    story.brings_trades("b", 2)
    assert story.accepted == [1, 2]


def test_end_of_the_only_line_is_a_hole(story: Story) -> None:
    """What Bybit sends until the next subscription never reaches us."""
    story.opens("a")
    story.brings_trades("a", 1)

    assert story.ends("a")


def test_end_of_a_line_that_was_never_confirmed_is_no_hole_of_its_own(story: Story) -> None:
    """The channel had no live line before either."""
    story.opens("a", is_confirmed=False)

    assert not story.ends("a")


def test_heir_that_was_confirmed_long_ago_leaves_no_hole(story: Story) -> None:
    """It was subscribed while the other one was certainly alive, so it has brought all that followed."""
    story.opens("a", "b")
    story.brings_trades("a", 1)
    story.now_s += 5
    story.brings_trades("b", 2)

    assert not story.ends("a")
    assert story.accepted == [1, 2]


def test_heir_that_was_just_confirmed_leaves_a_hole(story: Story) -> None:
    """Frames may have been sent after the last one of the old line and before the subscription of the new one."""
    story.opens("a")
    story.brings_trades("a", 1)
    story.now_s += 5
    story.opens("b")
    story.brings_trades("b", 3)

    assert story.ends("a")
    assert story.accepted == [1, 3]


def test_line_that_is_not_subscribed_yet_is_no_heir(story: Story) -> None:
    """It is live from its confirmation or its first frame on, not from its opening."""
    story.opens("a")
    story.brings_trades("a", 1)
    story.opens("b", is_confirmed=False)

    assert story.ends("a")
    assert not story.copy.has_joined("b")
    story.copy.confirmed("b", story.now_s)
    assert story.copy.has_joined("b")


def test_heir_older_than_the_last_frame_leaves_no_hole(story: Story) -> None:
    """A ticker from before the last one proves that the new line was subscribed in time; it is not published."""
    story.opens("a")
    story.brings("a", a_ticker(cs=1), 1)
    story.brings("a", a_ticker(kind="delta", cs=3, ts=AT_MS + 300), 3)
    story.opens("b")
    story.brings("b", a_ticker(cs=2, ts=AT_MS + 250), "state 2")

    assert not story.ends("a")
    story.brings("b", a_ticker(kind="delta", cs=3, ts=AT_MS + 300), 3)
    story.brings("b", a_ticker(kind="delta", cs=4, ts=AT_MS + 400), 4)
    assert story.accepted == [1, 3, 4]


def test_known_snapshot_is_accepted_after_a_hole(story: Story) -> None:
    """Only so does the translation learn that the state is right again."""
    story.opens("a")
    story.brings("a", a_ticker(cs=1), 1)
    story.ends("a")
    story.opens("b")

    story.brings("b", a_ticker(cs=1), "1 again")

    assert story.accepted == [1, "1 again"]


def test_changes_without_their_snapshot_ask_for_one(story: Story) -> None:
    """A snapshot that could not be decoded must not leave the ticker without a state for good."""
    story.opens("a")
    story.brings("a", a_ticker(kind="delta", cs=2), 2)
    assert story.copy.is_broken

    story.brings("a", a_ticker(cs=3, ts=AT_MS + 100), 3)

    assert not story.copy.is_broken
    assert story.accepted == [2, 3]


def test_level_1_sent_again_is_dropped() -> None:
    """After three seconds without change Bybit repeats it under the same number."""
    story = Story()
    story.opens("a")
    story.brings("a", a_snapshot(update_id=5, depth=1), 5)
    story.brings("a", a_snapshot(update_id=5, depth=1, ts=AT_MS + 9_000), "5 again")
    story.brings("a", a_snapshot(update_id=8, depth=1), 8)

    assert story.accepted == [5, 8]


def test_line_that_held_too_much_leaves_a_hole(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held is bounded; what was let go is known to be missing."""
    monkeypatch.setattr(arbitration, "HELD_FRAMES", 3)
    story.opens("a", "b")
    story.brings_trades("a", 1)
    story.now_s += 0.5
    story.brings_trades("b", 3, 4, 5, 6)
    story.now_s += 5

    assert story.ends("a")
    assert story.accepted == [1, 4, 5, 6]


def test_old_names_are_forgotten_and_their_copies_still_known(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory must not grow with the number of channels; a copy is then known by its time."""
    monkeypatch.setattr(seen_names, "FEW_IDENTITIES", 2)
    story.opens("a", "b")
    story.brings_trades("a", 1)
    story.brings_trades("b", 1)
    later = [generation * seen_names.KNOWN_FOR_MS + n for generation in (1, 2) for n in (10, 20)]
    story.brings_trades("a", 2, 3, *later)

    story.brings_trades("b", 2, 3, *later)

    assert story.accepted == [1, 2, 3, *later]
    assert story.copy._known.has_none_of(["t1", "t2", "t3"])


def test_frames_older_than_all_remembered_ones_are_copies(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that is far behind brings what was accepted so long ago that its name is forgotten."""
    monkeypatch.setattr(seen_names, "KNOWN_IDENTITIES", 3)
    monkeypatch.setattr(seen_names, "FEW_IDENTITIES", 0)
    story.opens("a", "b")
    story.brings_trades("a", 1)
    story.brings_trades("b", 1)
    story.brings_trades("a", 2, 3, 4, 5, 6)

    story.brings_trades("b", 2, 3, 4, 5, 6, 7)

    assert story.accepted == [1, 2, 3, 4, 5, 6, 7]


def test_one_absurd_time_hides_nothing_that_follows(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame from the far future must not turn all later ones into copies when its name is forgotten."""
    monkeypatch.setattr(seen_names, "KNOWN_IDENTITIES", 2)
    monkeypatch.setattr(seen_names, "FEW_IDENTITIES", 0)
    story.opens("a")
    story.brings("a", a_trade("t0", ts=AT_MS * 100), 0)

    story.brings_trades("a", 1, 2, 3, 4)

    assert story.accepted == [0, 1, 2, 3, 4]
