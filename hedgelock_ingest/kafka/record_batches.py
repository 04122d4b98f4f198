"""Batches of records that may have to be sent otherwise than they were first built."""

import sys
from collections.abc import Iterable

from hedgelock_ingest.clock import Clock, wall_ms
from hedgelock_ingest.kafka.batch_format import Codec, RecordBatch, with_length
from hedgelock_ingest.kafka.headers import HeaderEncoder
from hedgelock_ingest.translate.record import Record


class Batch(RecordBatch):
    """A batch that keeps its records; `is_retimed` if their timestamps are not their own."""

    __slots__ = ("is_retimed", "records")

    def __init__(self, limit: int, codec: Codec) -> None:
        super().__init__(limit, codec)
        self.records: list[Record] = []
        self.is_retimed = False


class BatchRebuilder:
    """Builds batches again from the records of one that was refused."""

    def __init__(self, headers: HeaderEncoder, codec: Codec, clock: Clock) -> None:
        """Build as the publisher does."""
        self._headers = headers
        self._codec = codec
        self._clock = clock

    def halves(self, batch: Batch) -> list[Batch]:
        """Return two batches with the records of one."""
        half = batch.count // 2
        parts = batch.records[:half], batch.records[half:]
        return [self._built(part, is_retimed=batch.is_retimed) for part in parts]

    def retimed(self, batch: Batch) -> Batch:
        """Return a batch with the present time instead of the records' own, which their headers have."""
        return self._built(batch.records, is_retimed=True)

    def _built(self, records: Iterable[Record], *, is_retimed: bool) -> Batch:
        batch = Batch(sys.maxsize, self._codec)
        batch.is_retimed = is_retimed
        now_ms = wall_ms(self._clock)
        for record in records:
            at_ms = now_ms if is_retimed else min(record.received_ns // 1_000_000, now_ms)
            batch.append(at_ms, with_length(record.key), record.value, self._headers.encode(record))
            batch.records.append(record)
        return batch
