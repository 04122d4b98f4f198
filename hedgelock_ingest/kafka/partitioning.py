"""Which partition a key goes to: ours to decide, so that it is the same after every restart."""

from aiokafka.partitioner import murmur2


def partition_for(key: bytes, partitions: int) -> int:
    """
    Give the partition of a key, 0 to `partitions` - 1: what Kafka's own default partitioner gives.

    Source: Apache Kafka, `BuiltInPartitioner.partitionForKey`.
    """
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)
