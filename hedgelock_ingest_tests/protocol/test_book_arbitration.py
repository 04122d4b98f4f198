"""Arbitration of order books: the other line fills a skipped update, and one that all skipped is reported."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgelock_ingest.protocol.arbitration import DEFAULT_TIMING
from hedgelock_ingest.protocol.book_arbitration import BookArbitration
from hedgelock_ingest.protocol.messages import BookMessage, decode
from hedgelock_ingest_tests.builders import AT_MS, a_delta, a_snapshot

SKIP_TIMEOUT_S = DEFAULT_TIMING.skip_timeout_s


class Books:
    """An order book with lines; `accepted` are update ids, negative for snapshots."""

    def __init__(self, *lines: str) -> None:
        self.copy: BookArbitration[str, int] = BookArbitration()
        self.now_s = 100.0
        self.accepted: list[int] = []
        for line in lines:
            self.copy.line_opened(line)
            self.copy.confirmed(line, self.now_s)

    def brings(self, line: str, *update_ids: int, sequence: int | None = None, ts: int | None = None) -> None:
        """Offer updates of a line; a negative number is a snapshot."""
        for u in update_ids:
            write = a_snapshot if u < 0 else a_delta
            message = decode(write(update_id=abs(u), sequence=sequence, ts=ts))
            assert isinstance(message, BookMessage)
            self.accepted += [offer.payload for offer in self.copy.offer(line, message, u, self.now_s)]

    def waits(self, seconds: float) -> None:
        """Advance the time."""
        self.now_s += seconds
        self.accepted += [offer.payload for offer in self.copy.tick(self.now_s)]


@pytest.fixture
def books() -> Books:
    """Two lines that have joined, at update 10."""
    books = Books("a", "b")
    books.brings("a", -10)
    books.brings("b", -10)
    return books


def test_update_skipped_by_one_line_comes_from_the_other(books: Books) -> None:
    """The book stays complete and in order."""
    books.brings("a", 11, 13)
    assert books.accepted == [-10, 11]

    books.brings("b", 11, 12)

    assert books.accepted == [-10, 11, 12, 13]
    assert not books.copy.is_broken


def test_update_skipped_by_all_lines_breaks_the_book(books: Books) -> None:
    """Later updates are accepted in order; `is_broken` makes the caller request a snapshot."""
    books.brings("a", 11, 13)
    books.brings("b", 11, 13, 14)

    assert books.copy.is_broken
    assert books.accepted == [-10, 11, 13, 14]


def test_snapshot_is_requested_on_the_line_that_is_ahead(books: Books) -> None:
    """The snapshot of a line that lags would be old on arrival."""
    books.brings("b", 11, 12, 13)
    books.brings("a", 11)
    assert books.copy.quickest() == "b"

    books.brings("a", 12, 13, 14)
    assert books.copy.quickest() == "a"


def test_update_skipped_by_the_only_line_breaks_the_book_at_once() -> None:
    """There is no other line to wait for."""
    books = Books("a")
    books.brings("a", -10, 12)

    assert books.copy.is_broken
    assert books.accepted == [-10, 12]


def test_broken_book_continues_with_the_snapshot_of_a_joining_line() -> None:
    """The live line may wait long for Bybit's answer and bring nothing."""
    books = Books("a")
    books.brings("a", -10, 12)
    books.copy.line_opened("b")
    books.brings("b", -14, 15)
    books.waits(SKIP_TIMEOUT_S * 2)  # the live line may bring the updates before it

    assert books.accepted == [-10, 12, -14, 15]
    assert not books.copy.is_broken


def test_wait_for_a_skipped_update_is_bounded(books: Books) -> None:
    """A silent line must not stop the other."""
    books.brings("a", 12, 14)
    books.waits(SKIP_TIMEOUT_S / 2)
    assert books.accepted == [-10]

    books.waits(SKIP_TIMEOUT_S)
    assert books.accepted == [-10, 12]
    assert books.copy.is_broken

    books.waits(SKIP_TIMEOUT_S * 2)
    assert books.accepted == [-10, 12, 14]


def test_each_missing_update_has_its_full_wait(books: Books) -> None:
    """The wait starts again when another update is missing."""
    books.brings("a", 12, 14)
    books.waits(SKIP_TIMEOUT_S * 0.8)
    books.brings("b", 11)
    assert books.accepted == [-10, 11, 12]

    books.waits(SKIP_TIMEOUT_S * 0.8)
    books.brings("b", 13)

    assert books.accepted == [-10, 11, 12, 13, 14]
    assert not books.copy.is_broken


def test_wait_ends_with_the_line_that_was_waited_for(books: Books) -> None:
    """No other line can bring the missing update."""
    books.brings("a", 12)
    line_end = books.copy.line_closed("b", received_s=books.now_s, now_s=books.now_s)

    assert [offer.payload for offer in line_end.accepted] == [12]
    assert books.copy.is_broken


def test_snapshot_waits_for_the_updates_of_a_slower_line(books: Books) -> None:
    """Updates are accepted in order, and the snapshot requested on one line at its place among them."""
    books.brings("a", 12, 13)
    books.brings("b", 12, 13)
    books.brings("a", -16, 17)
    assert books.accepted == [-10, 12, 13]
    assert books.copy.is_broken

    books.brings("b", 14, 15, 16)

    assert books.accepted == [-10, 12, 13, 14, 15, 16, -16, 17]
    assert not books.copy.is_broken


def test_wait_of_a_snapshot_is_bounded(books: Books) -> None:
    """A silent line must not leave the book broken."""
    books.brings("a", -16, 17)
    books.waits(SKIP_TIMEOUT_S / 2)
    assert books.accepted == [-10]

    books.waits(SKIP_TIMEOUT_S)

    assert books.accepted == [-10, -16, 17]
    assert not books.copy.is_broken


def test_snapshot_repairs_a_broken_book(books: Books) -> None:
    """It may be newer than the last update, or equal to it."""
    for snapshot in (13, 20):
        books.brings("a", snapshot - 1, snapshot)
        books.brings("b", snapshot - 1, snapshot)
        assert books.copy.is_broken
        books.brings("a", -snapshot)
        assert not books.copy.is_broken

    assert books.accepted == [-10, 12, 13, -13, 19, 20, -20]


def test_older_snapshot_of_a_slower_line_is_a_copy(books: Books) -> None:
    """It would set the book back."""
    books.brings("a", 11, 12, 13)
    books.brings("b", -12)

    assert books.accepted == [-10, 11, 12, 13]


def test_update_that_comes_after_a_later_one_is_counted_as_late(books: Books) -> None:
    """It reached us but is in no topic, which must be visible."""
    books.brings("a", -15)
    books.waits(SKIP_TIMEOUT_S * 2)
    books.brings("b", 11, 12)

    assert books.accepted == [-10, -15]
    assert books.copy.late == 2


def test_snapshot_with_number_one_replaces_the_book(books: Books) -> None:
    """Bybit restarts numbering from 1; the other line's old updates are dropped."""
    books.brings("a", 11)
    books.brings("a", -1, sequence=1_000)
    books.brings("b", 11, 12)
    books.brings("a", 2, sequence=1_001)
    books.waits(SKIP_TIMEOUT_S * 2)
    books.brings("b", -1, sequence=1_000)
    books.brings("b", 2, sequence=1_001)
    books.brings("b", 3, sequence=1_002)

    assert books.accepted == [-10, 11, -1, 2, 3]
    assert not books.copy.is_broken


def test_lower_numbers_with_a_later_time_renumber_the_book(books: Books) -> None:
    """Dropping them as copies would stop the book for good."""
    later_ms = AT_MS + 60_000
    books.brings("a", 11)
    books.brings("a", -5, ts=later_ms)
    books.brings("b", 11)
    books.brings("b", -5, ts=later_ms)
    books.brings("b", 6, ts=later_ms + 20)
    books.brings("a", 6, ts=later_ms + 20)

    assert books.accepted == [-10, 11, -5, 6]
    assert not books.copy.is_broken


@pytest.mark.parametrize("update_id", [5, 3])
def test_renumbered_delta_breaks_the_book_until_its_snapshot(books: Books, update_id: int) -> None:
    """It does not wait for updates of the old numbering."""
    later_ms = AT_MS + 60_000
    books.brings("a", 11, 13)
    books.brings("a", update_id, ts=later_ms)
    assert books.copy.is_broken

    books.brings("a", -7, ts=later_ms + 40)
    books.waits(SKIP_TIMEOUT_S * 2)  # the other line may bring the updates before it
    books.brings("a", 8, ts=later_ms + 60)

    assert books.accepted == [-10, 11, update_id, -7, 8]
    assert not books.copy.is_broken


def test_book_may_be_renumbered_after_a_gap() -> None:
    """The exchange may have restarted meanwhile, with other numbers."""
    books = Books("a")
    books.brings("a", -10, 11)
    books.copy.line_closed("a", received_s=books.now_s, now_s=books.now_s)
    books.copy.line_opened("c")
    books.copy.confirmed("c", books.now_s)
    books.brings("c", -5, ts=AT_MS + 60_000)
    books.brings("c", 6, ts=AT_MS + 60_020)

    assert books.accepted == [-10, 11, -5, 6]
    assert not books.copy.is_broken


def test_waiting_line_brings_what_the_live_one_skipped() -> None:
    """A line that joins brings the missing update."""
    books = Books("a")
    books.brings("a", -10)
    books.now_s += 10
    books.copy.line_opened("b")
    books.copy.confirmed("b", books.now_s)
    books.brings("b", -11, 12, 13)
    books.brings("a", 11, 13, 14)

    assert books.accepted == [-10, 11, 12, 13, 14]
    assert not books.copy.is_broken


updates = st.integers(11, 40)


@settings(max_examples=150, deadline=None)
@given(
    skipped=st.fixed_dictionaries({"a": st.sets(updates), "b": st.sets(updates)}),
    snapshots=st.sets(updates, max_size=3),
    order=st.lists(st.sampled_from("ab"), min_size=60, max_size=60),
)
def test_lines_together_lose_only_what_both_skipped(
    skipped: dict[str, set[int]], snapshots: set[int], order: list[str]
) -> None:
    """However they skip and interleave: in order, once, and broken only by updates that both skipped."""
    books = Books("a", "b")
    books.brings("a", -10)
    books.brings("b", -10)
    sent = {line: [-u if u in snapshots else u for u in range(11, 41) if u not in skipped[line]] for line in "ab"}

    for line in order:
        if sent[line]:
            books.brings(line, sent[line].pop(0))
    for line in "ab":
        books.brings(line, *sent[line])
    for _ in range(30):
        books.waits(SKIP_TIMEOUT_S * 2)

    numbers = [abs(u) for u in books.accepted]
    assert numbers == sorted(numbers)
    assert books.accepted == list(dict.fromkeys(books.accepted))
    missing = {u for u in range(11, numbers[-1]) if u not in numbers}
    assert missing <= skipped["a"] & skipped["b"]
    assert books.copy.late == 0
    if not missing:
        assert not books.copy.is_broken


@settings(max_examples=100, deadline=None)
@given(
    skipped=st.integers(11, 20),
    left=st.integers(0, 6),
    away=st.integers(1, 6),
    order=st.lists(st.sampled_from("ab"), min_size=60, max_size=60),
)
def test_requested_snapshot_loses_no_update_of_the_other_line(
    skipped: int, left: int, away: int, order: list[str]
) -> None:
    """
    One line resubscribes and receives a snapshot; all updates of the other line are accepted, in order.

    A snapshot that arrives when the other line is ahead is old; the book stays broken, so another one is requested.
    """
    books = Books("a", "b")
    books.brings("a", -10)
    books.brings("b", -10)
    deltas = [u for u in range(11, 41) if u != skipped]
    leaves, returns = skipped + left, skipped + left + away
    sent = {
        "a": [u for u in deltas if u <= leaves] + [-returns] + [u for u in deltas if u > returns],
        "b": list(deltas),
    }

    for line in order:
        if sent[line]:
            books.brings(line, sent[line].pop(0))
    for line in "ab":
        books.brings(line, *sent[line])

    assert [u for u in books.accepted if u > 0] == deltas
    assert [abs(u) for u in books.accepted] == sorted(abs(u) for u in books.accepted)
    assert books.copy.is_broken == (-returns not in books.accepted)
    assert books.copy.late == 0
