"""The outbox gives frames in order without a hole, or nothing, so that they are read from the journal."""

from hedgelock_ingest.pipeline.arrivals import Arrivals
from hedgelock_ingest.pipeline.frame_buffer import LIMIT_BYTES, Outbox
from hedgelock_ingest.protocol.frames import Frame


def arrivals(first: int, count: int, *, size: int = 8) -> Arrivals:
    """Make frames from a position on; each holds its own position."""
    made = Arrivals()
    for position in range(first, first + count):
        made.add(Frame("linear-a", 1, bytes(16), position.to_bytes(size)))
    return made


def put(outbox: Outbox, first: int, count: int, *, size: int = 8) -> None:
    """Put frames into the outbox."""
    outbox.put(first, arrivals(first, count, size=size))


def positions(outbox: Outbox, after: int, limit: int = 100) -> list[int]:
    """Take from the outbox and return positions, which the frames must have."""
    group = outbox.take(after, limit)
    if group is None:
        return []
    assert [int.from_bytes(frame.raw) for frame, _ in group.arrivals] == list(group.positions)
    assert group.arrivals.raw_bytes == sum(len(frame.raw) for frame in group.arrivals.frames)
    return list(group.positions)


def test_frames_come_in_order_and_once() -> None:
    """Each frame is published from memory while publishing keeps up."""
    outbox = Outbox()
    outbox.attach(5)
    for first in (5, 9, 11, 13):
        put(outbox, first, 4 if first == 5 else 2)
    assert positions(outbox, 4, limit=3) == [5, 6, 7, 8]
    assert positions(outbox, 8, limit=5) == [9, 10, 11, 12]
    assert positions(outbox, 12) == [13, 14]
    assert positions(outbox, 14) == []


def test_frames_taken_once_are_not_passed_over_when_asked_for_again() -> None:
    """A new producer goes back to what was acknowledged last; the frames since then must not be skipped."""
    outbox = Outbox()
    outbox.attach(1)
    put(outbox, 1, 6)
    put(outbox, 7, 4)
    assert positions(outbox, 0, limit=6) == [1, 2, 3, 4, 5, 6]
    assert positions(outbox, 2) == []
    assert positions(outbox, 6) == [7, 8, 9, 10]
    assert positions(outbox, 2) == []


def test_frames_from_before_the_outbox_are_left_to_the_journal() -> None:
    """Nothing is given while a frame in front of it may be in the journal alone."""
    outbox = Outbox()
    put(outbox, 1, 3)
    assert positions(outbox, 0) == []
    outbox.attach(4)
    put(outbox, 4, 2)
    assert positions(outbox, 1) == []
    assert positions(outbox, 3) == [4, 5]


def test_frames_that_were_read_from_the_journal_are_skipped() -> None:
    """Where both have a frame it is published once."""
    outbox = Outbox()
    outbox.attach(1)
    put(outbox, 1, 5)
    assert positions(outbox, 3) == [4, 5]


def test_frames_under_way_to_the_journal_keep_their_positions() -> None:
    """Attaching while a group is being journalled must neither shift nor double its frames."""
    outbox = Outbox()
    outbox.attach(4)
    put(outbox, 2, 5)
    put(outbox, 7, 1)
    assert positions(outbox, 3) == [4, 5, 6, 7]


def test_memory_is_bounded() -> None:
    """Frames that wait longer than memory lasts are left to the journal, all of them."""
    outbox = Outbox()
    outbox.attach(1)
    put(outbox, 1, 40, size=LIMIT_BYTES // 32)
    assert outbox.begins_at is None
    assert positions(outbox, 0) == []


def test_memory_that_was_given_back_may_be_used_again() -> None:
    """What was taken, or passed over, does not count against the bound."""
    outbox = Outbox()
    outbox.attach(1)
    for first in range(1, 101, 10):
        put(outbox, first, 10, size=LIMIT_BYTES // 32)
        assert positions(outbox, first + 2) == list(range(first + 3, first + 10))


def test_frames_behind_a_jump_of_positions_are_left_to_the_journal() -> None:
    """A journal that has lost its mark goes on far above: memory must not give its frames other positions."""
    outbox = Outbox()
    outbox.attach(11)
    put(outbox, 1_000_011, 3)
    assert outbox.begins_at is None
    assert positions(outbox, 10) == []
