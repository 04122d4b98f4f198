"""Record headers: the origin of a record in the journal, and its trace id."""

from collections.abc import Sequence
from functools import lru_cache

from hedgelock_ingest.kafka.batch_format import VARINTS, with_length
from hedgelock_ingest.models.topics import CONTRACTS
from hedgelock_ingest.translate.record import Record

type Headers = Sequence[tuple[str, bytes]]

TRACE_ID = "trace-id"
MESSAGE_TYPE = "message-type"
JOURNAL_ID = "journal-id"
JOURNAL_POSITION = "journal-position"
RECORD_INDEX = "record-index"
_COUNT = 8

type RecordName = tuple[int, int]
"""(journal position, record index): unique in a topic, for one journal."""

type TracedName = tuple[int, int, bytes]
"""A name with its trace id: a journal restored from an older copy reuses positions, but never a trace id."""


class HeaderEncoder:
    """
    Encodes the headers of a journal's records in Kafka's binary format.

    Source of `traceparent`: W3C Trace Context, version 00; the trace id is the frame's, the parent id its second half.
    Source of the format: Apache Kafka, "Message Format", "Record Header".
    """

    def __init__(self, journal_id: bytes) -> None:
        """Encode headers of the journal `journal_id`."""
        self._before_position = _header(JOURNAL_ID, journal_id) + _name(JOURNAL_POSITION)
        self._received_ns = 0
        self._received = _header("received-ns", b"0")

    def encode(self, record: Record) -> bytes:
        """Return all headers of a record, preceded by their count; this is the hot path."""
        trace_id = record.trace_id.encode()
        trace = trace_id.replace(b"-", b"")
        position, number = b"%d" % record.position, record.number
        if record.received_ns != self._received_ns:
            self._received_ns = record.received_ns
            self._received = _header("received-ns", b"%d" % record.received_ns)
        return b"".join(
            (
                _BEFORE_TRACE_ID,
                trace_id,
                _BEFORE_TRACE,
                trace,
                b"-",
                trace[16:],
                _AFTER_TRACE[record.topic],
                _exchange_ms(record.exchange_ms),
                self._received,
                self._before_position,
                VARINTS[len(position)],
                position,
                _index(number) if number else _FIRST,
            )
        )


def _name(name: str) -> bytes:
    return with_length(name.encode())


def _header(name: str, value: bytes) -> bytes:
    return _name(name) + with_length(value)


@lru_cache(maxsize=4_096)
def _exchange_ms(at_ms: int) -> bytes:
    return _header("exchange-ms", b"%d" % at_ms)


def _index(number: int) -> bytes:
    return _header(RECORD_INDEX, b"%d" % number)


_TRACE_ID_BYTES = len("xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx")
_TRACEPARENT_BYTES = len("00-") + 32 + len("-") + 16 + len("-01")
_BEFORE_TRACE_ID = VARINTS[_COUNT] + _name(TRACE_ID) + VARINTS[_TRACE_ID_BYTES]
_BEFORE_TRACE = _name("traceparent") + VARINTS[_TRACEPARENT_BYTES] + b"00-"
_AFTER_TRACE = {
    topic: b"-01" + _header(MESSAGE_TYPE, contract.message.__name__.encode()) for topic, contract in CONTRACTS.items()
}
_FIRST = _index(0)


def name_in(headers: Headers, journal_id: bytes) -> RecordName | None:
    """Return the name of a record of the journal; None for a record of another journal or another program."""
    traced = traced_name_in(headers, journal_id)
    return None if traced is None else traced[:2]


def traced_name_in(headers: Headers, journal_id: bytes) -> TracedName | None:
    """Return the name and trace id of a record of the journal; None for one of another journal or another program."""
    values = dict(headers)
    if values.get(JOURNAL_ID) != journal_id:
        return None
    try:
        return int(values[JOURNAL_POSITION]), int(values[RECORD_INDEX]), values[TRACE_ID]
    except (KeyError, TypeError, ValueError):  # a header may be null
        return None
