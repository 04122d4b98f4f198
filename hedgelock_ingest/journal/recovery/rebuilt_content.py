"""Content of a rebuilt journal: the state to use, the frames that are lost, and the next position."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol
from uuid import uuid4

import msgspec

from hedgelock_ingest.journal.results import LostRange

# After a lost end, numbering continues beyond any position that can have been lost, so that a position which Kafka
# may already hold never names another frame.
STRIDE = 1_000_000_000


class StateRow(msgspec.Struct, frozen=True):
    """A verified row of `state`; several of different age may be found."""

    position: int
    checksum: int
    body: bytes | None


class IdentityRow(msgspec.Struct, frozen=True):
    """The row of `identity`."""

    journal_id: str
    next_position: int


class WatermarkContent(Protocol):
    """The content of the watermark file: the journal it belongs to, and what was durable."""

    @property
    def journal_id(self) -> str | None:
        """The journal it belongs to, None if the watermark file is lost."""
        ...

    @property
    def last_position(self) -> int:
        """Position of the last durable frame."""
        ...

    @property
    def state_position(self) -> int:
        """Position of the last durable state."""
        ...


class RebuiltContent(msgspec.Struct, frozen=True):
    """Content and losses of a rebuilt journal; the next frame gets `next_position`."""

    journal_id: str
    last_position: int
    state: StateRow
    lost: tuple[LostRange, ...]
    new_identity: bool
    next_position: int

    @property
    def state_lost(self) -> bool:
        """Whether no state is readable from which the frames can restore the last one."""
        return self.state.body is None

    @property
    def sentences(self) -> list[str]:
        """The losses, as sentences for the operator."""
        sentences = [_lost_sentence(lost) for lost in self.lost]
        if self.state_lost:
            sentences.append(
                f"the state of position {self.state.position} is lost; it is rebuilt from the remaining frames"
            )
        if self.new_identity:
            sentences.append(
                "the journal's identity is lost; it has a new one, and records of unacknowledged frames "
                "may be in Kafka under the old one"
            )
        return sentences


def decide_content(
    groups: Iterable[tuple[int, int]], state: StateRow | None, identity: IdentityRow | None, watermark: WatermarkContent
) -> RebuiltContent:
    """
    Decide the content of a rebuilt journal.

    Args:
        groups: First position and number of frames of each readable group, in order.
        state: The readable state of the highest position.
        identity: The readable identity.
        watermark: The watermark file beside the database.
    """
    ranges = list(_ranges(groups))
    journal_id = identity.journal_id if identity else watermark.journal_id
    has_watermark = journal_id is not None and watermark.journal_id == journal_id
    durable = watermark.last_position if has_watermark else None
    state = _choose_state(ranges, state, watermark.state_position if has_watermark else 0)
    last_position = max(ranges[-1][1] if ranges else 0, state.position)
    earlier = identity.next_position if identity else 1
    if journal_id is None or durable == last_position:
        next_position = max(last_position + 1, earlier)
    else:
        next_position = max(last_position, durable or 0, earlier) + STRIDE
    return RebuiltContent(
        journal_id=journal_id or uuid4().hex,
        last_position=last_position,
        state=state,
        lost=tuple(_lost(ranges, state.position, known_jump=earlier, durable=durable)),
        new_identity=journal_id is None,
        next_position=next_position,
    )


def after_unknown_end(last_position: int, next_position: int) -> int:
    """Return the next position in a journal whose end may be lost and whose watermark file is missing."""
    return max(last_position + 1, next_position) + STRIDE


def _ranges(groups: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield the ranges of consecutive positions, first and last included."""
    start = end = 0
    for first, count in groups:
        if end and first != end + 1:
            yield start, end
        if first != end + 1 or not end:
            start = first
        end = first + count - 1
    if end:
        yield start, end


def _choose_state(ranges: Sequence[tuple[int, int]], state: StateRow | None, acknowledged: int) -> StateRow:
    """
    Choose an older state than the last one only if the frames between can restore the last one from it.

    Otherwise the state is lost, which differs from none: records may have been published.
    """
    if state is not None and (
        state.position >= acknowledged
        or any(first <= state.position + 1 and acknowledged <= last for first, last in ranges)
    ):
        return state
    return StateRow(acknowledged, 0, None)


def _lost(
    ranges: Sequence[tuple[int, int]], state_position: int, *, known_jump: int, durable: int | None
) -> Iterator[LostRange]:
    expected = state_position + 1
    for first, last in ranges:
        if expected < first != known_jump:
            yield LostRange(expected, first - 1)
        expected = max(expected, last + 1)
    if durable is None or durable >= expected:
        yield LostRange(expected, durable)


def _lost_sentence(lost: LostRange) -> str:
    if lost.last is None:
        return f"frames from position {lost.first} on may be lost; where the journal ended is not recorded"
    return f"frames at positions {lost.first} to {lost.last} are lost"
