"""The headers of a record: where in the journal it came from, and how to trace it."""

from collections.abc import Sequence

from hedgelock_ingest.translate.record import Record

type Headers = Sequence[tuple[str, bytes]]

TRACE_ID = "trace-id"
JOURNAL_ID = "journal-id"
JOURNAL_POSITION = "journal-position"
RECORD_INDEX = "record-index"

type RecordName = tuple[int, int]
"""(journal position, record index): unique in a topic, for one journal."""

type TracedName = tuple[int, int, bytes]
"""A name with its trace id: a journal that is restored from an older copy gives positions again, but no trace."""


def headers_of(record: Record, journal_id: bytes) -> list[tuple[str, bytes]]:
    """
    Give the headers of a record of the journal `journal_id`.

    Source of `traceparent`: W3C Trace Context, version 00; the trace is the frame's, its second half the parent.
    """
    trace_id = record.trace_id.encode()
    trace = trace_id.replace(b"-", b"")
    return [
        (TRACE_ID, trace_id),
        ("traceparent", b"00-%b-%b-01" % (trace, trace[16:])),
        ("message-type", record.message_type),
        ("exchange-ms", b"%d" % record.exchange_ms),
        ("received-ns", b"%d" % record.received_ns),
        (JOURNAL_ID, journal_id),
        (JOURNAL_POSITION, b"%d" % record.position),
        (RECORD_INDEX, b"%d" % record.number),
    ]


def name_in(headers: Headers, journal_id: bytes) -> RecordName | None:
    """Read which record of the journal this is; None for another journal's, and for a stranger's record."""
    traced = traced_name_in(headers, journal_id)
    return None if traced is None else traced[:2]


def traced_name_in(headers: Headers, journal_id: bytes) -> TracedName | None:
    """Read which record this is, of which frame; None for another journal's, and for a stranger's record."""
    values = dict(headers)
    if values.get(JOURNAL_ID) != journal_id:
        return None
    try:
        return int(values[JOURNAL_POSITION]), int(values[RECORD_INDEX]), values[TRACE_ID]
    except (KeyError, TypeError, ValueError):  # a header may be null
        return None
