"""Durability of topics: whether an acknowledged record survives the loss of a broker."""

from collections.abc import Iterator, Sequence
from ipaddress import ip_address

from hedgelock_ingest.kafka.topic_reports import TopicReport
from hedgelock_ingest.settings import Settings

SAFE_REPLICAS = 3
SAFE_MIN_INSYNC_REPLICAS = 2
"""With both, a record has two copies when it is acknowledged, and one broker may fail without stopping the stream."""


def durability_warnings(reports: Sequence[TopicReport], settings: Settings) -> list[str]:
    """
    List, in sentences, the existing topics whose acknowledged records may be lost with one broker.

    A Kafka that is reached by loopback addresses alone is one for trials: no warnings.
    """
    if all(_is_loopback(server) for server in settings.kafka_bootstrap_servers.split(",")):
        return []
    return list(_warnings([report for report in reports if report.exists]))


def _warnings(reports: Sequence[TopicReport]) -> Iterator[str]:
    few = [f"{each.name} ({each.replication})" for each in reports if each.replication < SAFE_REPLICAS]
    if few:
        yield (
            f"fewer than {SAFE_REPLICAS} replicas: {', '.join(few)}; acknowledged records may be lost with a broker: "
            f"raise them with kafka-reassign-partitions, and set KAFKA_TOPIC_REPLICATION={SAFE_REPLICAS} for new topics"
        )
    low = [
        f"{each.name} ({each.min_insync_replicas})"
        for each in reports
        if 0 < each.min_insync_replicas < SAFE_MIN_INSYNC_REPLICAS
    ]
    if low:
        yield (
            f"min.insync.replicas below {SAFE_MIN_INSYNC_REPLICAS}: {', '.join(low)}; one copy is enough for an "
            "acknowledgement: raise it with kafka-configs, and set "
            f"KAFKA_TOPIC_MIN_INSYNC_REPLICAS={SAFE_MIN_INSYNC_REPLICAS} for new topics"
        )


def _is_loopback(server: str) -> bool:
    host = server.rpartition(":")[0].strip("[]")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
