"""Headers: the origin of a record, and its recognition after a restart."""

import re
import uuid

import pytest

from hedgelock_ingest.kafka.batch_format import VARINTS, Codec, RecordBatch
from hedgelock_ingest.kafka.headers import HeaderEncoder, name_in
from hedgelock_ingest.models.topics import CONTRACTS, Topic
from hedgelock_ingest.pipeline.receiver import new_trace
from hedgelock_ingest.translate.record import Record
from hedgelock_ingest_tests.builders import AT_MS, a_frame, a_trade
from hedgelock_ingest_tests.kafka.batches import headers_of, read_batch
from hedgelock_ingest_tests.translate.translating import Running

JOURNAL = b"0191b2c3-journal"


def test_headers_name_the_origin_of_a_record() -> None:
    """Tools read them without decoding the value."""
    frame = a_frame(a_trade(ts=AT_MS), received_ns=1_715_748_762_123_456_789)
    (record,) = Running().take(frame)

    headers = dict(headers_of(record, JOURNAL))

    assert headers["trace-id"] == b"2f1d4c7a-9b3e-4f60-a1b2-c3d4e5f60718"
    assert headers["message-type"] == b"Trade"
    assert headers["exchange-ms"] == b"1715748762000"
    assert headers["received-ns"] == b"1715748762123456789"
    assert [headers[name] for name in ("journal-id", "journal-position", "record-index")] == [JOURNAL, b"1", b"0"]


@pytest.mark.parametrize("trace", [new_trace(), bytes(6) + b"\x40\0\x80" + bytes(7)], ids=["random", "nearly zero"])
def test_traceparent_is_one_that_tracers_accept(trace: bytes) -> None:
    """Version 00, lower case, and neither half of it only zeros (W3C Trace Context, 3.2.2)."""
    (record,) = Running().take(a_frame(a_trade(), trace=trace))

    match = re.fullmatch(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-01", dict(headers_of(record, JOURNAL))["traceparent"])

    assert match is not None
    assert match[1].decode() == trace.hex() == uuid.UUID(record.trace_id).hex
    assert int(match[2], 16) != 0


@pytest.mark.parametrize("topic", Topic)
def test_message_type_is_the_model_of_the_topic(topic: Topic) -> None:
    """A consumer of several topics chooses its decoder by this header."""
    record = Record(topic, b"k", b"{}", 1, 0, str(uuid.UUID(int=1)), AT_MS, AT_MS * 1_000_000)

    assert dict(headers_of(record, JOURNAL))["message-type"] == CONTRACTS[topic].message.__name__.encode()


def test_each_record_has_the_time_of_its_own_frame() -> None:
    """Frames of one read share a time, those of the next have another one."""
    encoder, running = HeaderEncoder(JOURNAL), Running()
    batch = RecordBatch(10_000, Codec.NONE)
    times = [10**18, 10**18, 10**18 + 1, 10**18]
    for number, received_ns in enumerate(times):
        (record,) = running.take(a_frame(a_trade(f"t{number}"), received_ns=received_ns))
        batch.append(1, VARINTS[0], b"", encoder.encode(record))

    read = read_batch(batch.content(producer_id=1, epoch=0, sequence=0))

    assert [int(dict(each.headers)["received-ns"]) for each in read] == times


def test_record_is_recognised_by_its_headers() -> None:
    """A restart determines by the headers which records have arrived."""
    running = Running()
    running.position = 4_711
    records = running.take(a_trade("t1", "t2"))

    assert [name_in(headers_of(record, JOURNAL), JOURNAL) for record in records] == [(4_712, 0), (4_712, 1)]


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("journal-id", b"another"), ("journal-position", b"1"), ("record-index", b"0")],
        [("journal-id", JOURNAL), ("record-index", b"0")],
        [("journal-id", JOURNAL), ("journal-position", b"one"), ("record-index", b"0")],
        [("journal-id", JOURNAL), ("journal-position", None), ("record-index", b"0")],
    ],
)
def test_record_of_another_program_has_no_name(headers: list[tuple[str, bytes]]) -> None:
    """Other programs may write to the same topic, with other headers or null ones."""
    assert name_in(headers, JOURNAL) is None
