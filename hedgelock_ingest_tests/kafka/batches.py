"""Decoding of batches with aiokafka's reader."""

from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.memory_records import MemoryRecords

from hedgelock_ingest.kafka.batch_format import Codec, RecordBatch, with_length
from hedgelock_ingest.kafka.headers import HeaderEncoder, Headers
from hedgelock_ingest.translate.record import Record

NO_HEADERS = b"\0"


def read_batch(content: bytes) -> DefaultRecordBatch:
    """Decode bytes that hold exactly one batch."""
    records = MemoryRecords(content)
    batch = records.next_batch()
    assert batch is not None
    assert batch.validate_crc()
    assert records.next_batch() is None
    return batch


def headers_of(record: Record, journal_id: bytes) -> Headers:
    """Return the headers that a record of a journal has in Kafka."""
    batch = RecordBatch(1_000, Codec.NONE)
    batch.append(1, with_length(record.key), b"", HeaderEncoder(journal_id).encode(record))
    (read,) = read_batch(batch.content(producer_id=1, epoch=0, sequence=0))
    headers: Headers = read.headers
    return headers
