"""The frame buffer returns frames in order without a gap, or nothing, so that they are read from the journal."""

from hedgelock_ingest.pipeline.arrivals import Arrivals
from hedgelock_ingest.pipeline.frame_buffer import LIMIT_BYTES, FrameBuffer
from hedgelock_ingest.protocol.frames import Frame


def arrivals(first: int, count: int, *, size: int = 8) -> Arrivals:
    """Make frames from a position on; each contains its position."""
    made = Arrivals()
    for position in range(first, first + count):
        made.add(Frame("linear-a", 1, bytes(16), position.to_bytes(size)))
    return made


def put(buffer: FrameBuffer, first: int, count: int, *, size: int = 8) -> None:
    """Put frames into the buffer, numbered from `first`."""
    buffer.put(first, arrivals(first, count, size=size))


def positions(buffer: FrameBuffer, after: int, limit: int = 100) -> list[int]:
    """Take frames from the buffer and return their positions, which must match their content."""
    group = buffer.take(after, limit)
    if group is None:
        return []
    assert [int.from_bytes(frame.raw) for frame, _ in group.arrivals] == list(group.positions)
    assert group.arrivals.raw_bytes == sum(len(frame.raw) for frame in group.arrivals.frames)
    return list(group.positions)


def test_frames_come_in_order_and_once() -> None:
    """Each frame is published from memory while publishing keeps up."""
    buffer = FrameBuffer()
    buffer.attach(5)
    for first in (5, 9, 11, 13):
        put(buffer, first, 4 if first == 5 else 2)
    assert positions(buffer, 4, limit=3) == [5, 6, 7, 8]
    assert positions(buffer, 8, limit=5) == [9, 10, 11, 12]
    assert positions(buffer, 12) == [13, 14]
    assert positions(buffer, 14) == []


def test_frames_taken_once_are_not_skipped_when_requested_again() -> None:
    """A new producer restarts after the last acknowledged frame; the frames since then must not be skipped."""
    buffer = FrameBuffer()
    buffer.attach(1)
    put(buffer, 1, 6)
    put(buffer, 7, 4)
    assert positions(buffer, 0, limit=6) == [1, 2, 3, 4, 5, 6]
    assert positions(buffer, 2) == []
    assert positions(buffer, 6) == [7, 8, 9, 10]
    assert positions(buffer, 2) == []


def test_frames_from_before_the_buffer_are_left_to_the_journal() -> None:
    """Nothing is returned while an earlier frame may be in the journal only."""
    buffer = FrameBuffer()
    put(buffer, 1, 3)
    assert positions(buffer, 0) == []
    buffer.attach(4)
    put(buffer, 4, 2)
    assert positions(buffer, 1) == []
    assert positions(buffer, 3) == [4, 5]


def test_frames_that_were_read_from_the_journal_are_skipped() -> None:
    """A frame that is in the journal and in the buffer is published once."""
    buffer = FrameBuffer()
    buffer.attach(1)
    put(buffer, 1, 5)
    assert positions(buffer, 3) == [4, 5]


def test_frames_being_journalled_keep_their_positions() -> None:
    """Attaching during an append must neither shift nor double its frames."""
    buffer = FrameBuffer()
    buffer.attach(4)
    put(buffer, 2, 5)
    put(buffer, 7, 1)
    assert positions(buffer, 3) == [4, 5, 6, 7]


def test_memory_is_bounded() -> None:
    """When the bound is exceeded, all frames are left to the journal."""
    buffer = FrameBuffer()
    buffer.attach(1)
    put(buffer, 1, 40, size=LIMIT_BYTES // 32)
    assert buffer.begins_at is None
    assert positions(buffer, 0) == []


def test_memory_of_taken_frames_may_be_used_again() -> None:
    """Frames that were taken or skipped do not count against the bound."""
    buffer = FrameBuffer()
    buffer.attach(1)
    for first in range(1, 101, 10):
        put(buffer, first, 10, size=LIMIT_BYTES // 32)
        assert positions(buffer, first + 2) == list(range(first + 3, first + 10))


def test_frames_after_a_jump_of_positions_are_left_to_the_journal() -> None:
    """A journal that has lost its watermark continues far above; the buffer must not renumber its frames."""
    buffer = FrameBuffer()
    buffer.attach(11)
    put(buffer, 1_000_011, 3)
    assert buffer.begins_at is None
    assert positions(buffer, 10) == []
