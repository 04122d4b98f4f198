"""Partitioning: the partition of a key equals that of Kafka's own clients."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgelock_ingest.kafka.addresses import partition_for

# Source: Apache Kafka, clients, UtilsTest.testMurmur2.
KAFKAS_HASHES = [
    (b"21", -973932308),
    (b"foobar", -790332482),
    (b"a-little-bit-long-string", -985981536),
    (b"a-little-bit-longer-string", -1486304829),
    (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
    (b"abc", 479470107),
]


@pytest.mark.parametrize(("key", "hashed"), KAFKAS_HASHES)
@pytest.mark.parametrize("partitions", [1, 6, 12, 97])
def test_partition_is_the_one_that_kafka_computes(key: bytes, hashed: int, partitions: int) -> None:
    """A consumer or another producer that computes the partition of a key must get the same one."""
    assert partition_for(key, partitions) == (hashed & 0x7FFFFFFF) % partitions


@given(key=st.binary(max_size=40), partitions=st.integers(1, 200))
def test_partition_is_below_the_number_of_partitions(key: bytes, partitions: int) -> None:
    """For any key, the partition is below the number of partitions."""
    assert 0 <= partition_for(key, partitions) < partitions
