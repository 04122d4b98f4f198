"""Groups of frames, one per database row: a msgpack array, tied to its position by a checksum."""

from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

import msgspec

from hedgelock_ingest.errors import JournalDamaged
from hedgelock_ingest.protocol.frames import Frame

# Disk space of a frame besides its raw bytes: origin, time, trace id and its share of the row.
FRAME_OVERHEAD_BYTES = 64

_CHECKSUM_CHUNK_BYTES = 5 * 1024

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Frame])


def counted_bytes(frames: Sequence[Frame]) -> int:
    """Return the bytes that frames count against the journal's bound."""
    return sum([len(frame.raw) for frame in frames]) + FRAME_OVERHEAD_BYTES * len(frames)


class CommitGroup(NamedTuple):
    """A row of `groups`, in the order of its columns."""

    first: int
    frame_count: int
    bytes_through: int
    checksum: int
    body: bytes

    @property
    def last(self) -> int:
        """Position of the last frame."""
        return self.first + self.frame_count - 1


def encode_group(frames: Sequence[Frame], first: int, bytes_through: int) -> CommitGroup:
    """Return the row of frames whose first one has position `first`."""
    body = _encoder.encode(frames)
    return CommitGroup(first, len(frames), bytes_through, checksum_of(body, first, len(frames), bytes_through), body)


def decode_group(group: CommitGroup) -> list[Frame]:
    """
    Return the frames of a row.

    Raises:
        JournalDamaged: The row differs from what was written.
    """
    try:
        if group.checksum != checksum_of(group.body, group.first, group.frame_count, group.bytes_through):
            raise JournalDamaged(f"frames at positions {group.first} to {group.last} do not match their checksum")
        return _decoder.decode(group.body)
    except (TypeError, msgspec.MsgspecError) as error:
        raise JournalDamaged(f"frames at position {group.first} cannot be decoded") from error


def checksum_of(body: bytes, *other_columns: int) -> int:
    """Return the checksum of a row's body together with the numbers in its other columns."""
    view = memoryview(body)
    checksum = crc32(str(other_columns).encode())
    # In chunks: above 5 KiB crc32 releases the interpreter lock, and waits to get it back while the loop is busy.
    for start in range(0, len(view), _CHECKSUM_CHUNK_BYTES):
        checksum = crc32(view[start : start + _CHECKSUM_CHUNK_BYTES], checksum)
    return checksum
