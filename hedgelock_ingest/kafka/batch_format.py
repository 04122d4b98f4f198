"""
Kafka's record batch, format 2, assembled from encoded parts.

Source: Apache Kafka, "Message Format", "Record Batch".
"""

import struct
from collections.abc import Callable
from enum import IntEnum
from typing import Final

import cramjam
from aiokafka.codec import gzip_encode, snappy_encode, zstd_encode
from aiokafka.record.util import calc_crc32c


class Codec(IntEnum):
    """Compression codecs, by their number in a batch's attributes; the names are those of the settings."""

    NONE = 0
    GZIP = 1
    SNAPPY = 2
    LZ4 = 3
    ZSTD = 4


_LZ4_LEVEL = 1
"""The fast level; aiokafka offers only level 9, which takes seven times as long for a sixth fewer bytes."""


def lz4_compress(records: bytes) -> bytes:
    """Compress to one LZ4 frame at the fast level. Kafka's brokers refuse linked blocks (KIP-57)."""
    compressor = cramjam.lz4.Compressor(level=_LZ4_LEVEL, content_checksum=False, block_linked=False)
    compressor.compress(records)
    return bytes(compressor.finish())


_COMPRESS: Final[dict[Codec, Callable[[bytes], bytes]]] = {
    Codec.GZIP: gzip_encode,
    Codec.SNAPPY: snappy_encode,
    Codec.LZ4: lz4_compress,
    Codec.ZSTD: zstd_encode,
}
# Base offset, bytes that follow, leader's epoch, magic, checksum of all that follows.
_BEFORE = struct.Struct(">qiibI")
# Attributes, last offset, first and last time, producer's id and epoch, base sequence, records.
_HEAD = struct.Struct(">hiqqqhii")
_BYTES_NOT_COUNTED = 12
_ANY_EPOCH = -1
_MAGIC = 2
_NO_ATTRIBUTES = b"\0"


class RecordBatch:
    """
    A batch of records for one partition.

    aiokafka's builder takes two to three times as long per record, mostly for headers, which it takes as text and bytes
    and measures one by one.
    """

    __slots__ = ("_codec", "_first_ms", "_last_ms", "_limit", "_records", "count", "size")

    def __init__(self, limit: int, codec: Codec) -> None:
        """
        Start an empty batch.

        Args:
            limit: The largest size before compression, bytes; only a single record may exceed it.
            codec: Compression of the records, unless it would make them larger.
        """
        self.count = 0
        self.size = _BEFORE.size + _HEAD.size
        self._limit = limit
        self._codec = codec
        self._records: list[bytes] = []
        self._first_ms = self._last_ms = 0

    def append(self, at_ms: int, key: bytes, value: bytes, headers: bytes) -> bool:
        """
        Add a record, unless the batch is full; this is the hot path.

        Args:
            at_ms: Time of the record.
            key: Preceded by its length, as `with_length` returns it.
            value: Without its length.
            headers: Encoded, preceded by their count.
        """
        count, varints = self.count, VARINTS
        if not count:
            self._first_ms = self._last_ms = at_ms
        record = b"".join(
            (
                _NO_ATTRIBUTES,
                varints[at_ms - self._first_ms],
                varints[count],
                key,
                varints[len(value)],
                value,
                headers,
            )
        )
        length = varints[len(record)]
        size = self.size + len(length) + len(record)
        if size > self._limit and count:
            return False
        self._records += (length, record)
        if at_ms > self._last_ms:
            self._last_ms = at_ms
        self.count, self.size = count + 1, size
        return True

    def content(self, *, producer_id: int, epoch: int, sequence: int) -> bytes:
        """Return its bytes, as the batch of an idempotent producer whose sequence numbers begin at `sequence`."""
        codec, records = self._codec, b"".join(self._records)
        if codec is not Codec.NONE:
            compressed = _COMPRESS[codec](records)
            if len(compressed) < len(records):
                records = compressed
            else:
                codec = Codec.NONE
        head = _HEAD.pack(
            codec, self.count - 1, self._first_ms, self._last_ms, producer_id, epoch, sequence, self.count
        )
        checked = head + records
        length = _BEFORE.size - _BYTES_NOT_COUNTED + len(checked)
        return _BEFORE.pack(0, length, _ANY_EPOCH, _MAGIC, calc_crc32c(checked)) + checked


class Varints(dict[int, bytes]):
    """
    Integers in Kafka's record encoding; those below 16,384 are cached.

    Source: Apache Kafka, "Message Format", "varint" (Protocol Buffers' zigzag encoding).
    """

    def __missing__(self, number: int) -> bytes:
        """Encode an integer that is not cached."""
        rest = (number << 1) ^ (number >> 63)
        encoded = bytearray()
        while rest > 0x7F:
            encoded.append(rest & 0x7F | 0x80)
            rest >>= 7
        encoded.append(rest)
        found = bytes(encoded)
        if 0 <= number < _CACHED_BELOW:
            self[number] = found
        return found


def with_length(content: bytes) -> bytes:
    """Prefix a key, a value or a header's name with its length."""
    return VARINTS[len(content)] + content


_CACHED_BELOW = 16_384
VARINTS = Varints()
