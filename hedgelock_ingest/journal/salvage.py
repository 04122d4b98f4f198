"""Building a sound database from what can be read of a damaged one."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from uuid import uuid4

import msgspec

from hedgelock_ingest.errors import JournalWriteFailed
from hedgelock_ingest.journal import schema
from hedgelock_ingest.journal.carving import IdentityRow, StateRow, carve
from hedgelock_ingest.journal.files import Files
from hedgelock_ingest.journal.groups import Group
from hedgelock_ingest.journal.mark import Mark
from hedgelock_ingest.journal.schema import INSERT_DEAD_LETTER, dead_letter_row
from hedgelock_ingest.journal.values import LostRange, RefusedRecord

# After a lost end, numbering goes on further away than frames can have been lost: a position that Kafka may
# hold already never names another frame.
_STRIDE = 1_000_000_000

_KEEP_DEAD_LETTER = f"{INSERT_DEAD_LETTER} NOTHING"


class Salvaged(msgspec.Struct, frozen=True):
    """What the rebuilt database holds, and what it does not."""

    journal_id: str
    last_position: int
    state_position: int
    lost: tuple[LostRange, ...]
    state_lost: bool
    new_identity: bool


def rebuild(files: Files, mark: Mark) -> Salvaged:
    """
    Write `files.unfinished` from every readable row of the damaged database, which is not touched.

    Raises:
        JournalWriteFailed: There is no room for a second database; free some and open the journal again.
    """
    try:
        schema.create(files.unfinished, "")
        with closing(schema.connect_writer(files.unfinished)) as connection:
            # Nobody reads it before it is complete: no log, no sync until then.
            connection.execute("PRAGMA journal_mode = OFF")
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("BEGIN")
            salvaged = _Rebuilding(connection, mark).run(files)
            connection.execute("COMMIT")
            connection.execute("PRAGMA journal_mode = WAL")
            return salvaged
    except sqlite3.Error as error:
        raise JournalWriteFailed(f"a damaged journal in {files.directory} cannot be rebuilt: {error}") from error


def leave_room_for_lost_end(files: Files) -> None:
    """Number the next frames further away, in a sound database whose end may be lost, and a first state with it."""
    with closing(schema.connect_writer(files.database)) as connection:
        connection.execute("INSERT OR IGNORE INTO state VALUES (1, 0, 0, NULL)")
        connection.execute(
            "UPDATE identity SET next_position = ? + max(next_position, "
            "coalesce((SELECT max(position) FROM state), 0), "
            "coalesce((SELECT first + count FROM groups ORDER BY first DESC LIMIT 1), 1))",
            (_STRIDE,),
        )


class _Rebuilding:
    """One rebuilding: insert what is found in any order, then decide what it means."""

    def __init__(self, connection: sqlite3.Connection, mark: Mark) -> None:
        self._connection = connection
        self._mark = mark
        self._state: StateRow | None = None
        self._identity: IdentityRow | None = None

    def run(self, files: Files) -> Salvaged:
        self._insert_all(files)
        self._drop_overlapping()
        journal_id = self._identity.journal_id if self._identity else self._mark.journal_id
        is_marked = journal_id is not None and self._mark.journal_id == journal_id
        durable = self._mark.last_position if is_marked else None
        state = self._choose_state(self._mark.state_position if is_marked else 0)
        row = (state.position, state.checksum, state.body)
        self._connection.execute("INSERT INTO state VALUES (1, ?, ?, ?)", row)
        last = max((end for _, end in self._ranges()), default=0)
        salvaged = Salvaged(
            journal_id=journal_id or uuid4().hex,
            last_position=max(last, state.position),
            state_position=state.position,
            lost=tuple(self._lost(state.position, durable)),
            state_lost=state.body is None,
            new_identity=journal_id is None,
        )
        next_position = self._next_position(salvaged, durable)
        self._connection.execute(
            "UPDATE identity SET journal_id = ?, next_position = ?", (salvaged.journal_id, next_position)
        )
        return salvaged

    def _insert_all(self, files: Files) -> None:
        for found in carve(files.database, files.wal):
            match found:
                case Group():
                    self._connection.execute("INSERT OR IGNORE INTO groups VALUES (?, ?, ?, ?, ?)", found)
                case RefusedRecord():
                    self._connection.execute(_KEEP_DEAD_LETTER, dead_letter_row(found))
                case StateRow() if self._state is None or found.position > self._state.position:
                    self._state = found
                case IdentityRow() if self._identity is None:
                    self._identity = found

    def _drop_overlapping(self) -> None:
        """Drop what an append that failed left in the log, where another one took its positions."""
        self._connection.execute(
            "DELETE FROM groups WHERE first IN (SELECT first FROM (SELECT first, count, lead(first) OVER "
            "(ORDER BY first) AS next FROM groups) WHERE first + count > next)"
        )

    def _choose_state(self, acknowledged: int) -> StateRow:
        """
        Take an older state than the last one only if the frames between are there to make it new again.

        Without one the state is lost, which is not the same as none: something may have been published.
        """
        state = self._state
        if state is not None and (
            state.position >= acknowledged
            or any(first <= state.position + 1 and acknowledged <= end for first, end in self._ranges())
        ):
            return state
        return StateRow(acknowledged, 0, None)

    def _ranges(self) -> Iterator[tuple[int, int]]:
        """Positions without holes, from first to last."""
        start = end = 0
        for first, count in self._connection.execute("SELECT first, count FROM groups ORDER BY first"):
            if end and first != end + 1:
                yield start, end
            if first != end + 1 or not end:
                start = first
            end = first + count - 1
        if end:
            yield start, end

    def _lost(self, state_position: int, durable: int | None) -> Iterator[LostRange]:
        known_jump = self._identity.next_position if self._identity else 1
        expected = state_position + 1
        for first, end in self._ranges():
            if expected < first != known_jump:
                yield LostRange(expected, first - 1)
            expected = max(expected, end + 1)
        if durable is None or durable >= expected:
            yield LostRange(expected, durable)

    def _next_position(self, salvaged: Salvaged, durable: int | None) -> int:
        earlier = self._identity.next_position if self._identity else 1
        if salvaged.new_identity or durable == salvaged.last_position:
            return max(salvaged.last_position + 1, earlier)
        return max(salvaged.last_position, durable or 0, earlier) + _STRIDE
