"""
The pages of a damaged database, read without SQLite: rows are found on any leaf page that is still whole.

SQLite needs every page on the way from the first one to a row. Here each page stands for itself, so whatever
else is garbage, cut off or zeroed, a row whose own pages are left is found. Rows bring their own checksums;
what is found here is a candidate only.

Source: SQLite, "Database File Format", sections 1.5 to 1.6, 2.1 and 4.1.
"""

import os
import struct
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

type Value = int | bytes | str | None

_TABLE_LEAF = 0x0D
_LEAF_HEADER_BYTES = 8
_WAL_HEADER_BYTES = 32
_WAL_FRAME = struct.Struct(">IIII")  # page number, pages after a commit or 0, two salts
_WAL_FRAME_HEADER_BYTES = 24
_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")
_INTEGER_BYTES = (0, 1, 2, 3, 4, 6, 8)


class RawFile:
    """A file that may be missing, cut, or on a disk that cannot read all of it: what is not there reads as zeros."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path if path.exists() else os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self._descriptor).st_size

    def read(self, at: int, size: int) -> bytes:
        """Read `size` bytes, filled up with zeros."""
        try:
            content = os.pread(self._descriptor, size, at)
        except OSError:
            content = b""
        return content.ljust(size, b"\0")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)


class WalFrame(NamedTuple):
    """One page in the write-ahead log."""

    page_number: int
    is_commit: bool
    at: int


class Row(NamedTuple):
    """Where a row of any table stands; its id is known without decoding it."""

    row_id: int
    page: bytes
    payload_at: int
    payload_bytes: int
    commit: int


class Image:
    """
    A database file and one generation of its write-ahead log.

    Args:
        database: None for an earlier generation, whose pages went into the database long ago.
        wal: The log.
        frames: That generation's, in the order written.
        page_bytes: A constant of the schema; the database may no longer tell.
    """

    def __init__(self, database: RawFile | None, wal: RawFile, frames: list[WalFrame], *, page_bytes: int) -> None:
        self._database = database
        self._wal = wal
        self._frames = frames
        self._page_bytes = page_bytes
        self._largest_row_bytes = wal.size + (database.size if database else 0)
        self._versions: defaultdict[int, list[int]] = defaultdict(list)
        for index, frame in enumerate(frames):
            self._versions[frame.page_number].append(index)

    def rows(self) -> Iterator[Row]:
        """
        Find what looks like a row, the database's own first, then those of the log in the order written.

        Of two rows with the same id and table, the first one counts: later ones may be left of a transaction
        that was never committed.
        """
        size = self._page_bytes
        if self._database is not None:
            for at in range(0, self._database.size, size):
                yield from self._rows_of(self._database.read(at, size), 0)
        for frame, commit in zip(self._frames, _commit_ends(self._frames), strict=True):
            yield from self._rows_of(self._wal.read(frame.at, size), commit)

    def values(self, row: Row) -> Iterator[list[Value]]:
        """Decode a row; several times, where its further pages stand in several versions."""
        for commit in dict.fromkeys((row.commit, 0, len(self._frames))):
            try:
                yield _decode_record(self._payload(row, commit))
            except (IndexError, ValueError, struct.error):
                continue

    def _rows_of(self, page: bytes, commit: int) -> Iterator[Row]:
        (count,) = _U16.unpack_from(page, 3)
        if page[0] != _TABLE_LEAF or count > (len(page) - _LEAF_HEADER_BYTES) // 4:
            return
        for index in range(count):
            (at,) = _U16.unpack_from(page, _LEAF_HEADER_BYTES + 2 * index)
            try:
                payload_bytes, at = _varint(page, at)
                row_id, at = _varint(page, at)
            except IndexError:
                continue
            if payload_bytes <= self._largest_row_bytes:
                yield Row(row_id, page, at, payload_bytes, commit)

    def _payload(self, row: Row, commit: int) -> bytes:
        local = _local_bytes(row.payload_bytes, self._page_bytes)
        payload = bytearray(row.page[row.payload_at : row.payload_at + local])
        if local < row.payload_bytes:
            (next_page,) = _U32.unpack_from(row.page, row.payload_at + local)
            while next_page and len(payload) < row.payload_bytes:
                page = self._page(next_page, commit)
                (next_page,) = _U32.unpack_from(page)
                payload += page[4 : 4 + row.payload_bytes - len(payload)]
        if len(payload) != row.payload_bytes:
            raise ValueError("the row's further pages are missing")
        return bytes(payload)

    def _page(self, number: int, commit: int) -> bytes:
        versions = self._versions.get(number, [])
        newest = bisect_left(versions, commit)
        if newest:
            return self._wal.read(self._frames[versions[newest - 1]].at, self._page_bytes)
        if self._database is None:
            raise ValueError("the page is not in this generation of the log")
        return self._database.read((number - 1) * self._page_bytes, self._page_bytes)


def wal_generations(wal: RawFile, *, page_bytes: int) -> list[list[WalFrame]]:
    """
    Split a write-ahead log by its salts: the current generation first, then leftovers of earlier ones.

    Frames behind a broken one are included, which SQLite no longer reaches.
    """
    generations: dict[tuple[int, int], list[WalFrame]] = {}
    step = _WAL_FRAME_HEADER_BYTES + page_bytes
    for at in range(_WAL_HEADER_BYTES, wal.size - step + 1, step):
        number, commit_pages, *salts = _WAL_FRAME.unpack(wal.read(at, _WAL_FRAME.size))
        frame = WalFrame(number, commit_pages > 0, at + _WAL_FRAME_HEADER_BYTES)
        generations.setdefault((salts[0], salts[1]), []).append(frame)
    return list(generations.values())


def _commit_ends(frames: list[WalFrame]) -> list[int]:
    """For each frame, how many frames stand in the log once its transaction is complete."""
    ends, end = [0] * len(frames), len(frames)
    for index in range(len(frames) - 1, -1, -1):
        if frames[index].is_commit:
            end = index + 1
        ends[index] = end
    return ends


def _local_bytes(payload_bytes: int, page_bytes: int) -> int:
    """Bytes of a payload that stand on the leaf page itself."""
    most = page_bytes - 35
    if payload_bytes <= most:
        return payload_bytes
    least = (page_bytes - 12) * 32 // 255 - 23
    wanted = least + (payload_bytes - least) % (page_bytes - 4)
    return wanted if wanted <= most else least


def _varint(page: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(8):
        byte = page[at + index]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + index + 1
    return value << 8 | page[at + 8], at + 9


def _decode_record(payload: bytes) -> list[Value]:
    header_bytes, at = _varint(payload, 0)
    values: list[Value] = []
    body_at = header_bytes
    while at < header_bytes:
        kind, at = _varint(payload, at)
        value, body_at = _decode_value(payload, kind, body_at)
        values.append(value)
    return values


def _decode_value(payload: bytes, kind: int, at: int) -> tuple[Value, int]:
    if kind == 0:
        return None, at
    if kind in (8, 9):
        return kind - 8, at
    if kind < len(_INTEGER_BYTES):
        end = at + _INTEGER_BYTES[kind]
        return int.from_bytes(payload[at:end], signed=True), end
    if kind < 12:
        raise ValueError(f"serial type {kind}")
    end = at + (kind - 12) // 2
    if end > len(payload):
        raise ValueError("a value ends after its row")
    content = payload[at:end]
    return (content.decode() if kind % 2 else content), end
