"""Groups of frames as they stand in a row: one msgpack array, bound to its position by a checksum."""

from collections.abc import Sequence
from zlib import crc32

import msgspec

from hedgelock_ingest.errors import JournalDamaged
from hedgelock_ingest.protocol.frames import Frame

# What a frame takes on disk besides its raw bytes: origin, time, trace and its share of the row.
FRAME_OVERHEAD_BYTES = 64

_PIECE_BYTES = 5 * 1024

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Frame])


def size_of(frames: Sequence[Frame]) -> int:
    """Return the bytes that frames count for against the journal's bound."""
    return sum([len(frame.raw) for frame in frames]) + FRAME_OVERHEAD_BYTES * len(frames)


def encode_group(frames: Sequence[Frame]) -> bytes:
    """Encode frames as the body of one row."""
    return _encoder.encode(frames)


def checksum_of(body: bytes | memoryview, first: int) -> int:
    """Return the checksum that binds a body to the position of its first frame."""
    view = memoryview(body)
    checksum = first & 0xFFFFFFFF
    # In pieces: above 5 KiB crc32 gives the interpreter's lock away, and waits for it while the loop is busy.
    for start in range(0, len(view), _PIECE_BYTES):
        checksum = crc32(view[start : start + _PIECE_BYTES], checksum)
    return checksum


def decode_group(first: int, count: int, checksum: int, body: bytes) -> list[Frame]:
    """
    Decode the body of a row.

    Raises:
        JournalDamaged: The bytes are not those that were written for these positions.
    """
    if checksum_of(body, first) != checksum:
        raise JournalDamaged(f"frames at positions {first} to {first + count - 1} do not match their checksum")
    try:
        frames = _decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise JournalDamaged(f"frames at positions {first} to {first + count - 1} cannot be decoded") from error
    if len(frames) != count:
        raise JournalDamaged(f"{len(frames)} frames at position {first}, expected {count}")
    return frames
