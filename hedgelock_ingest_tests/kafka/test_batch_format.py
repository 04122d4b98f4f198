"""Record batches: a Kafka reader decodes exactly what was put in."""

import os
from collections.abc import Sequence
from typing import NamedTuple

import pytest
from aiokafka import TopicPartition
from aiokafka.record.util import decode_varint, encode_varint
from hypothesis import given
from hypothesis import strategies as st

from hedgelock_ingest.clock import SystemClock
from hedgelock_ingest.kafka.batch_format import VARINTS, Codec, RecordBatch, lz4_compress, with_length
from hedgelock_ingest.kafka.batch_sender import BatchSender
from hedgelock_ingest.kafka.ports import KafkaTiming
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.kafka.batches import NO_HEADERS, read_batch
from hedgelock_ingest_tests.kafka.read_topic import read_topic
from hedgelock_ingest_tests.kafka.sessions import producing
from hedgelock_ingest_tests.kafka.topics import create_topic

AT_MS = 1_700_000_000_000


class Put(NamedTuple):
    """One record that is put into a batch."""

    at_ms: int
    key: bytes
    value: bytes
    headers: Sequence[tuple[str, bytes]] = ()


puts = st.builds(
    Put,
    st.integers(0, 2**48),
    st.binary(max_size=20),
    st.binary(max_size=300),
    st.lists(st.tuples(st.text(min_size=1, max_size=20), st.binary(max_size=200)), max_size=3),
)


def encoded(headers: Sequence[tuple[str, bytes]]) -> bytes:
    """Encode headers one by one."""
    parts = [with_length(name.encode()) + with_length(value) for name, value in headers]
    return VARINTS[len(parts)] + b"".join(parts)


def a_batch(all_of: Sequence[Put], codec: Codec = Codec.LZ4, limit: int = 10_000_000) -> RecordBatch:
    """Put records into a batch that holds them all."""
    batch = RecordBatch(limit, codec)
    for put in all_of:
        assert batch.append(put.at_ms, with_length(put.key), put.value, encoded(put.headers))
    return batch


@pytest.mark.parametrize("codec", Codec)
@given(all_of=st.lists(puts, min_size=1, max_size=20), sequence=st.integers(0, 2**31 - 1))
def test_batch_decodes_to_what_was_put_in(codec: Codec, all_of: list[Put], sequence: int) -> None:
    """Records, their order and times, the checksum and the sequence number, with every codec."""
    content = a_batch(all_of, codec).content(producer_id=4_711, epoch=3, sequence=sequence)

    batch = read_batch(content)

    assert (batch.producer_id, batch.producer_epoch, batch.base_sequence) == (4_711, 3, sequence)
    assert batch.max_timestamp == max(put.at_ms for put in all_of)
    assert batch.compression_type in (codec, Codec.NONE)
    read = [(one.offset, one.timestamp, one.key, one.value, one.headers) for one in batch]
    assert read == [(n, put.at_ms, put.key, put.value, list(put.headers)) for n, put in enumerate(all_of)]


@pytest.mark.parametrize("codec", [codec for codec in Codec if codec is not Codec.NONE])
def test_batch_is_compressed_only_if_that_makes_it_smaller(codec: Codec) -> None:
    """A record just below the limit of its topic must not exceed it through compression."""
    alike, random = Put(AT_MS, b"k", b"0" * 5_000), Put(AT_MS, b"k", os.urandom(5_000))

    assert read_batch(a_batch([alike], codec).content(producer_id=1, epoch=0, sequence=0)).compression_type == codec
    assert read_batch(a_batch([random], codec).content(producer_id=1, epoch=0, sequence=0)).compression_type == 0


def test_batch_is_compressed_at_the_fast_level() -> None:
    """aiokafka's function takes seven times as long for a sixth fewer bytes."""
    all_of = [Put(AT_MS + n, b"%d" % n, b'{"price":"61874.%d"}' % (n % 97)) for n in range(500)]
    plain, compressed = (
        a_batch(all_of, codec).content(producer_id=1, epoch=0, sequence=0) for codec in (Codec.NONE, Codec.LZ4)
    )

    records_at = 61  # Apache Kafka, "Record Batch"
    assert compressed[records_at:] == lz4_compress(plain[records_at:])


def test_full_batch_accepts_no_more_but_a_single_record_of_any_size() -> None:
    """The broker refuses larger batches; a single record that is too large is refused before."""
    batch = RecordBatch(1_000, Codec.NONE)

    assert batch.append(AT_MS, with_length(b"k"), bytes(2_000), NO_HEADERS)
    assert not batch.append(AT_MS, with_length(b"k"), b"", NO_HEADERS)
    assert batch.count == 1
    assert batch.size == len(batch.content(producer_id=1, epoch=0, sequence=0))


@given(number=st.integers(-(2**63), 2**63 - 1))
def test_numbers_are_encoded_as_kafka_decodes_them(number: int) -> None:
    """A wrong length or time difference would make a record unreadable."""
    theirs = bytearray()
    encode_varint(number, theirs.append)

    assert VARINTS[number] == theirs
    assert decode_varint(bytearray(VARINTS[number])) == (number, len(theirs))


async def test_broker_accepts_the_batches_of_an_idempotent_producer_in_order(
    kafka: EmbeddedKafka, topic_prefix: str
) -> None:
    """The broker checks length, checksum and sequence of every batch, and refuses wrong ones."""
    topic = topic_prefix + "batches"
    await create_topic(kafka.bootstrap_servers, topic)
    all_of = [Put(AT_MS + n, b"%d" % n, b"%d" % n * 50, [("number", b"%d" % n)]) for n in range(50)]

    async with producing(kafka.bootstrap_servers, topic) as session:
        sender, partition = BatchSender(session, SystemClock(), KafkaTiming()), TopicPartition(topic, 0)
        for start, codec in zip(range(0, len(all_of), 10), Codec, strict=True):
            assert await sender.send({partition: a_batch(all_of[start : start + 10], codec)}, patience_s=60.0) == {
                partition: start
            }

    read = [
        (one.timestamp, one.key, one.value, list(one.headers))
        for one in await read_topic(kafka.bootstrap_servers, topic)
    ]
    assert read == [(put.at_ms, put.key, put.value, list(put.headers)) for put in all_of]
