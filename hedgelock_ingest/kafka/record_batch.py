"""
Kafka's record batch, format 2, put together from parts that are ready.

Source: Apache Kafka, "Message Format", "Record Batch".
"""

import struct
from collections.abc import Callable
from enum import IntEnum
from typing import Final

from aiokafka.codec import gzip_encode, snappy_encode, zstd_encode
from aiokafka.record.util import calc_crc32c

from hedgelock_ingest.kafka.lz4 import compress
from hedgelock_ingest.kafka.varint import VARINTS


class Codec(IntEnum):
    """How the records of a batch are compressed, as its attributes say it; the names are those of the settings."""

    NONE = 0
    GZIP = 1
    SNAPPY = 2
    LZ4 = 3
    ZSTD = 4


_COMPRESS: Final[dict[Codec, Callable[[bytes], bytes]]] = {
    Codec.GZIP: gzip_encode,
    Codec.SNAPPY: snappy_encode,
    Codec.LZ4: compress,
    Codec.ZSTD: zstd_encode,
}
# Base offset, bytes that follow, leader's epoch, magic, checksum of all behind it.
_BEFORE = struct.Struct(">qiibI")
# Attributes, last offset, first and last time, producer's id and epoch, place in its sequence, records.
_HEAD = struct.Struct(">hiqqqhii")
_BYTES_NOT_COUNTED = 12
_ANY_EPOCH = -1
_MAGIC = 2
_NO_ATTRIBUTES = b"\0"


class RecordBatch:
    """
    Records on their way to one partition.

    aiokafka's own builder takes two to three times as long a record, most of it for headers, which it wants as text
    and bytes and measures one by one.
    """

    __slots__ = ("_codec", "_first_ms", "_last_ms", "_limit", "_records", "count", "size")

    def __init__(self, limit: int, codec: Codec) -> None:
        """
        Begin an empty one.

        Args:
            limit: The largest size before compression, bytes; only a single record may exceed it.
            codec: How the records are compressed, unless they would grow by it.
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
            at_ms: Its time.
            key: With its length before it, as `with_length` gives it.
            value: As it is.
            headers: Encoded, their count before them.
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
        """Give its bytes, as the part of an idempotent producer's sequence that begins with number `sequence`."""
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
