"""The content of a simulated journal, without ownership and commit times."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import msgspec

from hedgelock_ingest.journal import Recovery
from hedgelock_ingest.journal.recovery.rebuilt_content import (
    IdentityRow,
    RebuiltContent,
    StateRow,
    after_unknown_end,
    decide_content,
)
from hedgelock_ingest.protocol.frames import Frame
from hedgelock_ingest.translate.record import RefusedRecord

_STATES_KEPT = 8
"""Earlier states that a truncated log falls back to, as the real log keeps them until it is restarted."""

_first = attrgetter("first")


class StoredGroup(NamedTuple):
    """Frames of one commit; `write` counts all commits, also those of states and dead letters."""

    first: int
    frames: tuple[Frame, ...]
    bytes_through: int
    write: int

    @property
    def last(self) -> int:
        """Position of the last frame."""
        return self.first + len(self.frames) - 1


class _State(NamedTuple):
    position: int
    body: bytes | None
    write: int


class _Letter(NamedTuple):
    letter: RefusedRecord
    write: int


@dataclass(slots=True)
class StoredWatermark:
    """The watermark, stored apart from the log: the journal's id, what is durable, and how the owner ended."""

    journal_id: str | None
    last_position: int = 0
    state_position: int = 0
    ended_cleanly: bool = True


class JournalContent:
    """
    Frames in groups, states, dead letters, identity and watermark, with the rules and numbers of the real store.

    `recover`, which the next owner calls, finds damage and repairs it.
    """

    def __init__(self, journal_id: str) -> None:
        """Begin with an empty journal."""
        self.watermark = StoredWatermark(journal_id)
        self.last_position = 0
        self.state_position = 0
        self._next_position = 1
        self._bytes_through = 0
        self._acknowledged_bytes = 0
        self._identity = IdentityRow(journal_id, 1)
        self._groups: list[StoredGroup] = []
        self._states: list[_State] = []
        self._letters: list[_Letter] = []
        self._is_state_damaged = self._is_group_damaged = False
        self._writes = 0

    @property
    def journal_id(self) -> str:
        """The journal's id."""
        return self._identity.journal_id

    @property
    def backlog_bytes(self) -> int:
        """Bytes of the groups that are not fully acknowledged."""
        return self._bytes_through - self._acknowledged_bytes

    @property
    def stored_bytes(self) -> int:
        """Bytes of all groups after the oldest one."""
        return self._bytes_through - self._oldest_bytes_through

    @property
    def state_bytes(self) -> int:
        """Size of the saved state."""
        return len(self._states[-1].body or b"") if self._states else 0

    @property
    def dead_letters(self) -> list[RefusedRecord]:
        """The records that no topic accepted, by position."""
        found: dict[tuple[int, int, str], RefusedRecord] = {}
        for letter, _ in self._letters:
            name = (letter.position, letter.record_index, letter.topic)
            earlier = found.get(name)
            attempts = letter.attempts + (earlier.attempts if earlier else 0)
            body = earlier.body if earlier else letter.body
            found[name] = msgspec.structs.replace(letter, attempts=attempts, body=body)
        return [found[name] for name in sorted(found)]

    def append(self, frames: Sequence[Frame], frame_bytes: int) -> int:
        """Write one group and return the position of its first frame."""
        self._writes += 1
        first = self._next_position
        self._bytes_through += frame_bytes
        self._groups.append(StoredGroup(first, tuple(frames), self._bytes_through, self._writes))
        self.last_position = first + len(frames) - 1
        self._next_position = self.last_position + 1
        return first

    def save_state(self, position: int, state: bytes) -> None:
        """Replace the state; frames up to its position are acknowledged."""
        self._writes += 1
        self._states.append(_State(position, state, self._writes))
        del self._states[:-_STATES_KEPT]
        self.state_position = position
        self._acknowledged_bytes = self._bytes_through_position(position)

    def add_dead_letter(self, letter: RefusedRecord) -> None:
        """Keep a record that no topic accepts; the same one again counts another attempt."""
        self._writes += 1
        self._letters.append(_Letter(letter, self._writes))

    def begin(self) -> None:
        """Write the watermark of a new owner; from here on an end counts as unclean."""
        self.watermark = StoredWatermark(self.journal_id, self.last_position, self.state_position, ended_cleanly=False)

    def note(self) -> None:
        """Record in the watermark what is durable."""
        self.watermark.last_position = self.last_position
        self.watermark.state_position = self.state_position

    def read(self, after: int, *, limit: int) -> list[tuple[int, Frame]]:
        """Return up to `limit` frames that follow position `after`, in order."""
        found: list[tuple[int, Frame]] = []
        for index in range(max(bisect_right(self._groups, after + 1, key=_first) - 1, 0), len(self._groups)):
            group = self._groups[index]
            skipped = max(0, after + 1 - group.first)
            found.extend(enumerate(group.frames[skipped:], group.first + skipped))
            if len(found) >= limit:
                break
        return found[:limit]

    def load_state(self) -> tuple[int, bytes | None]:
        """Return the last state and its position; None when none ever was, empty when it is lost."""
        if not self._states:
            return 0, None
        state = self._states[-1]
        return state.position, b"" if state.body is None else state.body

    def groups_after(self, position: int) -> int:
        """Count the groups whose frames all come after a position."""
        return sum(group.first > position for group in self._groups)

    def tear(self, groups: int) -> int:
        """Truncate the last groups, with all that was written after the first of them; return the number of frames."""
        if not groups or not self._groups:
            return 0
        torn = self._groups[-groups:]
        del self._groups[-groups:]
        self._states = [state for state in self._states if state.write < torn[0].write]
        self._letters = [letter for letter in self._letters if letter.write < torn[0].write]
        self._count()
        return sum(len(group.frames) for group in torn)

    def lose_group(self, back: int) -> int:
        """Make the group unreadable that has `back` others after it; return its number of frames."""
        group = self._groups.pop(-1 - back)
        self._is_group_damaged = True
        return len(group.frames)

    def lose_state(self) -> None:
        """Make every saved state unreadable."""
        if self._states and self._states[-1].body is not None:
            self._states = [_State(self._states[-1].position, None, self._states[-1].write)]
            self._is_state_damaged = True

    def lose_watermark(self) -> None:
        """Remove the watermark."""
        self.watermark = StoredWatermark(None, ended_cleanly=False)

    @property
    def is_sound(self) -> bool:
        """Whether `recover` has nothing to write."""
        return self._has_watermark and not any(self._damage())

    def recover(self, kept_as: Path) -> Recovery:
        """Find damage and keep what can be read, as the opening of a journal does."""
        findings: list[str] = []
        if not self._has_watermark:
            findings.append("journal.mark is missing or damaged: whether frames at the end are lost is not known")
        damage = list(self._damage())
        if damage:
            rebuilt = self._rebuild()
            return Recovery(
                findings=(*findings, *damage, *rebuilt.sentences),
                lost=rebuilt.lost,
                kept_as=kept_as,
                state_lost=rebuilt.state_lost,
            )
        if not self._has_watermark:
            self._leave_room_for_lost_end()
        return Recovery(findings=tuple(findings))

    @property
    def _has_watermark(self) -> bool:
        return self.watermark.journal_id == self.journal_id

    def _damage(self) -> Iterator[str]:
        if self._is_state_damaged:
            yield f"the state of position {self.state_position} does not match its checksum"
        if self._is_group_damaged:
            yield "a group of frames does not match its checksum"
        if self._has_watermark and self.watermark.last_position > self.last_position:
            last = self._groups[-1].last if self._groups else 0
            yield f"the database ends at position {last}, but position {self.watermark.last_position} was durable"

    def _rebuild(self) -> RebuiltContent:
        readable = [StateRow(position, 0, body) for position, body, _ in self._states if body is not None]
        groups = ((group.first, len(group.frames)) for group in self._groups)
        rebuilt = decide_content(groups, readable[-1] if readable else None, self._identity, self.watermark)
        self._states = [_State(rebuilt.state.position, rebuilt.state.body, 0)]
        self._is_state_damaged = self._is_group_damaged = False
        self._number_from(rebuilt.next_position)
        self.begin()
        return rebuilt

    def _leave_room_for_lost_end(self) -> None:
        if not self._states:
            self._states = [_State(0, None, 0)]
        self._number_from(after_unknown_end(self.last_position, self._identity.next_position))

    def _number_from(self, next_position: int) -> None:
        self._identity = IdentityRow(self.journal_id, next_position)
        self._count()

    def _count(self) -> None:
        """Recompute the numbers from the stored groups, as at each opening."""
        last = self._groups[-1] if self._groups else StoredGroup(1, (), 0, 0)
        self.state_position = self._states[-1].position if self._states else 0
        self.last_position = max(last.last, self.state_position)
        self._next_position = max(self.last_position + 1, self._identity.next_position)
        self._bytes_through = last.bytes_through
        self._acknowledged_bytes = self._bytes_through_position(self.state_position)

    def _bytes_through_position(self, position: int) -> int:
        """Running total up to the last group that ends at or before `position`."""
        at = bisect_right(self._groups, position, key=_first)
        for group in reversed(self._groups[max(at - 2, 0) : at]):
            if group.last <= position:
                return group.bytes_through
        return 0

    @property
    def _oldest_bytes_through(self) -> int:
        return self._groups[0].bytes_through if self._groups else 0

    def overdue_bytes(self, history_bytes: int) -> int:
        """Return how many acknowledged bytes are older than the history."""
        return self._acknowledged_bytes - history_bytes - self._oldest_bytes_through

    def trim(self, history_bytes: int) -> bool:
        """Delete acknowledged groups that are older than the history, but the last one; return whether any was."""
        bound = self._acknowledged_bytes - max(history_bytes, 1)
        count = bisect_right(self._groups, bound, key=attrgetter("bytes_through"))
        del self._groups[:count]
        return count > 0
