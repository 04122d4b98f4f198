"""What can be had from a damaged database: groups, state, dead letters and identity, each proven by its checksum."""

from collections.abc import Iterator
from pathlib import Path

from hedgelock_ingest.errors import JournalDamaged
from hedgelock_ingest.journal.groups import Group, checksum_of, decode_group
from hedgelock_ingest.journal.image import Image, RawFile, Value, wal_generations
from hedgelock_ingest.journal.remains import IdentityRow, StateRow
from hedgelock_ingest.journal.schema import PAGE_BYTES
from hedgelock_ingest.journal.values import RefusedRecord

_JOURNAL_ID_CHARACTERS = 32


type Found = Group | StateRow | IdentityRow | RefusedRecord


def carve(database: Path, wal: Path) -> Iterator[Found]:
    """
    Find every row that is whole, in no order and possibly several times; the first of two counts.

    Args:
        database: May be missing, or anything.
        wal: Its write-ahead log; may be missing as well.
    """
    with RawFile(database) as pages, RawFile(wal) as log:
        for age, frames in enumerate(wal_generations(log, page_bytes=PAGE_BYTES) or [[]]):
            image = Image(None if age else pages, log, frames, page_bytes=PAGE_BYTES)
            for row in image.rows():
                for values in image.values(row):
                    found = _proven(values, row.row_id)
                    if found is not None:
                        yield found
                        break


def _proven(values: list[Value], row_id: int) -> Found | None:
    match values:
        case [None, int(count), int(through), int(checksum), bytes(body)]:
            return _proven_group(Group(row_id, count, through, checksum, body))
        case [None, int(position), int(checksum), bytes(body)] if checksum_of(body, position) == checksum:
            return StateRow(position, checksum, body)
        case [None, str(journal_id), int(next_position)] if len(journal_id) == _JOURNAL_ID_CHARACTERS:
            return IdentityRow(journal_id, next_position)
        case [
            int(position),
            int(index),
            str(topic),
            str(reason),
            int(at_ns),
            int(attempts),
            int(checksum),
            bytes(body),
        ]:
            proven = checksum_of(body, position) == checksum
            return RefusedRecord(position, index, topic, reason, body, at_ns, attempts) if proven else None
        case _:
            return None


def _proven_group(group: Group) -> Group | None:
    try:
        decode_group(group)
    except JournalDamaged:
        return None
    return group
