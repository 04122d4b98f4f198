"""The watermark file beside the database: identity, durable positions, and whether the owner ended cleanly."""

import mmap
import os
import struct
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from typing import NamedTuple, Self
from zlib import crc32

_MAGIC = b"HLMARK1\n"
_IDENTITY = slice(8, 24)
_SLOT = struct.Struct("<qqI")  # last position, position of the state, checksum
_SLOTS_AT = (24, 48)
_CLEAN_AT, _SUSPECT_AT, _BYTES = 72, 73, 74


class _Durable(NamedTuple):
    last_position: int
    state_position: int


class WatermarkFile:
    """
    The watermark file, mapped into memory: noting a position is one store and no system call.

    The store survives the end of the process. After a power cut it may lag behind the database, but never lead it:
    a database that ends before the watermark has lost its end. Two slots alternate, so that one is always complete.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(self._descriptor).st_size < _BYTES:
                # Allocated blocks, not a sparse file: a full disk must not turn a store into a bus error.
                os.pwrite(self._descriptor, bytes(_BYTES), 0)
            self._map = mmap.mmap(self._descriptor, _BYTES)
        except OSError:
            os.close(self._descriptor)
            raise
        self._next_slot_at = cycle(_SLOTS_AT)

    @property
    def journal_id(self) -> str | None:
        """The journal that the file belongs to; None when it is new or damaged."""
        if self._map[: len(_MAGIC)] != _MAGIC or not self._slots():
            return None
        return self._map[_IDENTITY].hex()

    @property
    def last_position(self) -> int:
        """The last position noted; 0 when the file is new or damaged."""
        return max((slot.last_position for slot in self._slots()), default=0)

    @property
    def state_position(self) -> int:
        """The position of the last state noted; 0 when the file is new or damaged."""
        return max((slot.state_position for slot in self._slots()), default=0)

    @property
    def ended_cleanly(self) -> bool:
        """Whether the previous owner closed the journal with no record in flight."""
        return self._map[_CLEAN_AT] == 1

    @property
    def suspects_damage(self) -> bool:
        """Whether the previous owner found unreadable pages."""
        return self._map[_SUSPECT_AT] != 0

    def begin(self, journal_id: str, *, last_position: int, state_position: int) -> None:
        """Write the watermark of a new owner; until `note_clean_end` its end counts as unclean."""
        identity = bytes.fromhex(journal_id)
        slot = _slot(identity, last_position, state_position)
        self._map[:] = (_MAGIC + identity + slot).ljust(_BYTES, b"\0")
        os.fdatasync(self._descriptor)

    def note(self, *, last_position: int, state_position: int) -> None:
        """Note the durable positions."""
        at = next(self._next_slot_at)
        self._map[at : at + _SLOT.size] = _slot(self._map[_IDENTITY], last_position, state_position)

    def note_damage(self) -> None:
        """Make the next owner check every page."""
        with suppress(OSError):  # the damage is found again, when the frames are read
            os.pwrite(self._descriptor, b"\1", _SUSPECT_AT)

    def note_clean_end(self) -> None:
        """
        Note that the owner ended with no record in flight.

        Raises:
            OSError: The disk refuses it; the end counts as unclean.
        """
        # Not a store: on a disk that has become read-only that would be a bus error.
        os.pwrite(self._descriptor, b"\1", _CLEAN_AT)
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Unmap the file."""
        self._map.close()
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _slots(self) -> list[_Durable]:
        identity = self._map[_IDENTITY]
        slots = ((self._map[at : at + _SLOT.size], _Durable(*_SLOT.unpack_from(self._map, at)[:2])) for at in _SLOTS_AT)
        return [durable for slot, durable in slots if slot == _slot(identity, *durable)]


def _slot(identity: bytes, last_position: int, state_position: int) -> bytes:
    checksum = crc32(b"%d %d" % (last_position, state_position), crc32(identity))
    return _SLOT.pack(last_position, state_position, checksum)
