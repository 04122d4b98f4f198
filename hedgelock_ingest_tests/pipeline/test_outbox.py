"""The outbox gives frames in order without a hole, or nothing, so that they are read from the journal."""

from hedgelock_ingest.pipeline.outbox import LIMIT_BYTES, Outbox
from hedgelock_ingest.pipeline.receiver import Arrival
from hedgelock_ingest.protocol.frames import Frame


def arrivals(count: int, *, raw: bytes = b"{}") -> list[Arrival]:
    """Make frames that nobody looks into."""
    return [Arrival(Frame("linear-a", 1, bytes(16), raw), None) for _ in range(count)]


def put(outbox: Outbox, first: int, new: list[Arrival]) -> None:
    """Put frames into the outbox."""
    outbox.put(first, new, sum(len(arrival.frame.raw) for arrival in new))


def positions(outbox: Outbox, after: int, limit: int = 100) -> list[int]:
    """Take from the outbox and return positions."""
    group = outbox.take(after, limit)
    assert group is None or len(group.positions) == len(group.arrivals)
    return [] if group is None else list(group.positions)


def test_frames_come_in_order_and_once() -> None:
    """Each frame is published from memory while publishing keeps up."""
    outbox = Outbox()
    outbox.attach(5)
    put(outbox, 5, arrivals(4))
    assert positions(outbox, 4, limit=3) == [5, 6, 7]
    assert positions(outbox, 7) == [8]
    assert positions(outbox, 8) == []


def test_frames_taken_once_are_not_passed_over_when_asked_for_again() -> None:
    """A new producer goes back to what was acknowledged last; the frames since then must not be skipped."""
    outbox = Outbox()
    outbox.attach(1)
    put(outbox, 1, arrivals(10))
    assert positions(outbox, 0, limit=6) == [1, 2, 3, 4, 5, 6]
    assert positions(outbox, 2) == []
    assert positions(outbox, 6) == [7, 8, 9, 10]
    assert positions(outbox, 2) == []


def test_frames_from_before_the_outbox_are_left_to_the_journal() -> None:
    """Nothing is given while a frame in front of it may be in the journal alone."""
    outbox = Outbox()
    put(outbox, 1, arrivals(3))
    assert positions(outbox, 0) == []
    outbox.attach(4)
    put(outbox, 4, arrivals(2))
    assert positions(outbox, 1) == []
    assert positions(outbox, 3) == [4, 5]


def test_frames_that_were_read_from_the_journal_are_skipped() -> None:
    """Where both have a frame it is published once."""
    outbox = Outbox()
    outbox.attach(1)
    put(outbox, 1, arrivals(5))
    assert positions(outbox, 3) == [4, 5]


def test_frames_under_way_to_the_journal_keep_their_positions() -> None:
    """Attaching while a group is being journalled must neither shift nor double its frames."""
    outbox = Outbox()
    outbox.attach(4)
    put(outbox, 2, arrivals(5))
    put(outbox, 7, arrivals(1))
    assert positions(outbox, 3) == [4, 5, 6, 7]


def test_memory_is_bounded() -> None:
    """Frames that wait longer than memory lasts are left to the journal, all of them."""
    outbox = Outbox()
    outbox.attach(1)
    put(outbox, 1, arrivals(40, raw=bytes(LIMIT_BYTES // 32)))
    assert outbox.begins_at is None
    assert positions(outbox, 0) == []
