"""Partition of a key, computed here so that it is the same after every restart."""

from aiokafka.partitioner import murmur2


def partition_for(key: bytes, partitions: int) -> int:
    """
    Return the partition of a key, 0 to `partitions` - 1, as Kafka's default partitioner does.

    Source: Apache Kafka, `BuiltInPartitioner.partitionForKey`.
    """
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)
