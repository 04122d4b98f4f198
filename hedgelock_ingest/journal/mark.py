"""A small file beside the database that survives it: identity, last durable position, and how the owner ended."""

import mmap
import os
import struct
from pathlib import Path
from typing import Self

# Magic, journal id; last position, the state's position, and the two once more as a check; ended cleanly, suspect.
_LAYOUT = struct.Struct("<8s16sqqqBB")
_MAGIC = b"HLMARK1\n"
_POSITIONS = struct.Struct("<qqq")
_POSITIONS_AT, _CLEAN_AT, _SUSPECT_AT = 24, 48, 49


class Mark:
    """
    The file, mapped into memory: noting a position is one store and no system call.

    The store survives the end of the process. After a power cut it may lag behind the database, never lead it:
    a database that ends before the mark has lost its end.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(self._descriptor).st_size < _LAYOUT.size:
                # Real blocks, not a hole: a full disk must not turn a store into a bus error.
                os.pwrite(self._descriptor, bytes(_LAYOUT.size), 0)
            self._map = mmap.mmap(self._descriptor, _LAYOUT.size)
        except OSError:
            os.close(self._descriptor)
            raise

    @property
    def journal_id(self) -> str | None:
        """The journal this mark belongs to, or None when the file is new or damaged."""
        magic, identity, last, state, check, *_ = _LAYOUT.unpack(self._map[:])
        return identity.hex() if magic == _MAGIC and check == ~(last ^ state) else None

    @property
    def last_position(self) -> int:
        """The last position noted."""
        position: int = _POSITIONS.unpack_from(self._map, _POSITIONS_AT)[0]
        return position

    @property
    def state_position(self) -> int:
        """The position of the last state noted."""
        position: int = _POSITIONS.unpack_from(self._map, _POSITIONS_AT)[1]
        return position

    @property
    def ended_cleanly(self) -> bool:
        """The previous owner closed the journal with nothing under way."""
        return self._map[_CLEAN_AT] == 1

    @property
    def suspects_damage(self) -> bool:
        """The previous owner met pages it could not use."""
        return self._map[_SUSPECT_AT] == 1

    def begin(self, journal_id: str, *, last_position: int, state_position: int) -> None:
        """Write the mark of a new owner; from here on the end counts as unclean."""
        check = ~(last_position ^ state_position)
        self._map[:] = _LAYOUT.pack(_MAGIC, bytes.fromhex(journal_id), last_position, state_position, check, 0, 0)
        os.fdatasync(self._descriptor)

    def note(self, *, last_position: int, state_position: int) -> None:
        """Note what is durable."""
        check = ~(last_position ^ state_position)
        _POSITIONS.pack_into(self._map, _POSITIONS_AT, last_position, state_position, check)

    def note_damage(self) -> None:
        """Have the next owner check every page."""
        self._map[_SUSPECT_AT] = 1

    def note_clean_end(self) -> None:
        """Say that the owner ended with nothing under way."""
        self._map[_CLEAN_AT] = 1
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Unmap the file."""
        self._map.close()
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
