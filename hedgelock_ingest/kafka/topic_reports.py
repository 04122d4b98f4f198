"""Reports of topics: what was found in Kafka, compared with what we would create and need."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from aiokafka.errors import NoError, TopicAuthorizationFailedError, UnknownTopicOrPartitionError, for_code

from hedgelock_ingest.errors import KafkaDenied
from hedgelock_ingest.kafka.client import denied, unavailable
from hedgelock_ingest.kafka.topic_metadata import FoundTopic
from hedgelock_ingest.models.topics import CONTRACTS, Topic
from hedgelock_ingest.settings import Settings

REQUIRED_OPERATIONS = ("Create", "Describe", "Read", "Write")
"""Operations without which the stream does not run: `Create` where a topic is missing, `Read` at the next resume."""
HELPFUL_OPERATIONS = ("DescribeConfigs",)
"""Operations without which Kafka's defaults are assumed."""
_DEFAULT_MAX_MESSAGE_BYTES = 1_048_588
"""Source: Apache Kafka, topic configuration `max.message.bytes`."""
_SMALLEST_MAX_MESSAGE_BYTES = 1_000_000
"""Dead letters, the largest records, are kept in the journal alone where a topic takes less than this."""
_LONGEST_OUTAGE_MS = 86_400_000
_CLOCK_DIFFERENCE_MS = 60_000


@dataclass(frozen=True, slots=True)
class TopicReport:
    """
    One topic as it exists in Kafka; `differences` from what we would create or need, as sentences.

    `topic` is None for a further topic of `KAFKA_ROUTES` that is none of ours: it may have any configuration.
    `min_insync_replicas` is 0 where the broker does not report it, as others than Apache Kafka. `cleanup`,
    `retention_ms` and `max_message_bytes` are None where they could not be read. `denied` names operations that Kafka
    denies the user, of `REQUIRED_OPERATIONS` and `HELPFUL_OPERATIONS`; whether a topic exists is unknown without
    `Describe`.
    """

    topic: Topic | None
    name: str
    exists: bool
    created: bool = False
    partitions: int = 0
    leaderless: int = 0
    replication: int = 0
    min_insync_replicas: int = 0
    cleanup: str | None = None
    retention_ms: int | None = None
    max_message_bytes: int | None = None
    denied: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()

    @property
    def is_missing(self) -> bool:
        """Whether the topic is known not to exist."""
        return not self.exists and "Describe" not in self.denied

    @property
    def is_readable(self) -> bool:
        """Whether the topic exists, the user may read it as far as is known, and each partition has a leader."""
        return self.exists and "Read" not in self.denied and not self.leaderless

    @property
    def is_compacted(self) -> bool:
        """Whether Kafka removes older records of a key; where that is unknown, as we would create the topic."""
        expected = "" if self.topic is None else CONTRACTS[self.topic].cleanup
        return "compact" in (expected if self.cleanup is None else self.cleanup)

    @property
    def assumed_max_message_bytes(self) -> int:
        """`max_message_bytes`, or Kafka's default where it is unknown."""
        return self.max_message_bytes or _DEFAULT_MAX_MESSAGE_BYTES


def require(settings: Settings, reports: Sequence[TopicReport], operations: Collection[str]) -> None:
    """Raise `KafkaDenied` if Kafka denies any of the operations on any topic."""
    if found := denials(settings, reports, operations):
        raise KafkaDenied("; ".join(found))


def denials(settings: Settings, reports: Sequence[TopicReport], operations: Collection[str]) -> list[str]:
    """Return sentences about those of the operations that Kafka denies, each with the command that allows them."""
    names: dict[tuple[str, ...], list[str]] = {}
    for report in reports:
        if lacking := tuple(each for each in report.denied if each in operations):
            names.setdefault(lacking, []).append(report.name)
    return [str(denied(settings, lacking, topics)) for lacking, topics in names.items()]


def topic_report(
    settings: Settings, topic: Topic | None, name: str, found: FoundTopic, configs: Mapping[str, str] | None
) -> TopicReport:
    """
    Compare a topic as it was found with what we would create and need.

    Args:
        settings: The expected partitions and replicas, and the user.
        topic: None for a further topic.
        name: Kafka's name.
        found: The topic's metadata.
        configs: Its configuration; None if Kafka denies it, without an entry where the broker reports none.

    Raises:
        KafkaUnavailable: The metadata are an error other than a missing topic or a lacking permission.
    """
    error = for_code(found.error_code)
    if error is TopicAuthorizationFailedError:
        return TopicReport(topic, name, exists=False, denied=("Describe", "Read", "Write"))  # each includes the first
    required = [each for each in REQUIRED_OPERATIONS if each != "Create" or error is not NoError]
    lacking = [each for each in required if found.permitted is not None and each not in found.permitted]
    if error is UnknownTopicOrPartitionError:
        return TopicReport(topic, name, exists=False, denied=tuple(lacking), differences=("missing",))
    if error is not NoError:
        raise unavailable(settings, f"{error.__name__} for the topic {name}")
    if configs is None:
        lacking.append("DescribeConfigs")
    known = configs or {}
    min_insync = int(known.get("min.insync.replicas", 0))
    return TopicReport(
        topic,
        name,
        exists=True,
        partitions=found.partitions,
        leaderless=found.leaderless,
        replication=found.replication,
        min_insync_replicas=min_insync,
        cleanup=known.get("cleanup.policy"),
        retention_ms=_number(known, "retention.ms"),
        max_message_bytes=_number(known, "max.message.bytes"),
        denied=tuple(lacking),
        differences=(
            *_contract_differences(settings, topic, found.partitions, known),
            *(_replica_differences(settings, found.replication, min_insync) if topic is not None else ()),
            *([leaderless_text(found.leaderless, found.partitions)] if found.leaderless else []),
            *_refusals(found.replication, min_insync, known),
        ),
    )


def leaderless_text(leaderless: int, partitions: int) -> str:
    """Return what `check` and a blocked topic report of partitions without a leader."""
    return f"{leaderless} of {partitions} partitions have no leader: their brokers are down"


def _number(configs: Mapping[str, str], name: str) -> int | None:
    return int(configs[name]) if name in configs else None


def _contract_differences(
    settings: Settings, topic: Topic | None, partitions: int, configs: Mapping[str, str]
) -> Iterator[str]:
    cleanup, retention_ms = configs.get("cleanup.policy"), _number(configs, "retention.ms")
    if topic is None:
        if cleanup is not None and "compact" in cleanup:
            yield f"cleanup.policy {cleanup}: copies are deleted when others of the same key follow"
        return
    contract = CONTRACTS[topic]
    if partitions != settings.kafka_topic_partitions:
        yield f"{partitions} partitions, expected {settings.kafka_topic_partitions}"
    if cleanup is not None and set(cleanup.split(",")) != set(contract.cleanup.split(",")):
        yield f"cleanup.policy {cleanup}, expected {contract.cleanup}"
    if retention_ms is not None and retention_ms != contract.retention_ms:
        yield f"retention.ms {retention_ms}, expected {contract.retention_ms}"


def _replica_differences(settings: Settings, replication: int, min_insync: int) -> Iterator[str]:
    if settings.kafka_topic_replication not in (None, replication):
        yield f"replication {replication}, expected {settings.kafka_topic_replication}"
    if min_insync and settings.kafka_topic_min_insync_replicas not in (None, min_insync):
        yield f"min.insync.replicas {min_insync}, expected {settings.kafka_topic_min_insync_replicas}"


def _refusals(replication: int, min_insync: int, configs: Mapping[str, str]) -> Iterator[str]:
    """Yield what makes Kafka refuse records of ours, or file them under another time."""
    if min_insync > replication:
        yield f"min.insync.replicas {min_insync} with replication {replication}, so that Kafka accepts no record"
    if configs.get("message.timestamp.type") == "LogAppendTime":
        yield "message.timestamp.type LogAppendTime: records get Kafka's time instead of ours; set CreateTime"
    else:
        yield from _refused_times(configs)
    max_bytes = _number(configs, "max.message.bytes")
    if max_bytes is not None and max_bytes < _SMALLEST_MAX_MESSAGE_BYTES:
        yield (
            f"max.message.bytes {max_bytes}: larger records stay in the journal alone; "
            f"set at least {_SMALLEST_MAX_MESSAGE_BYTES}"
        )


def _refused_times(configs: Mapping[str, str]) -> Iterator[str]:
    # Before Kafka 3.6, one configuration bounded both directions (KIP-937).
    for name in ("message.timestamp.before.max.ms", "message.timestamp.difference.max.ms"):
        limit_ms = _number(configs, name)
        if limit_ms is not None and limit_ms < _LONGEST_OUTAGE_MS:
            yield (
                f"{name} {limit_ms}: after a longer outage Kafka refuses what has waited; "
                f"set at least {_LONGEST_OUTAGE_MS}, a day"
            )
    after_ms = _number(configs, "message.timestamp.after.max.ms")
    if after_ms is not None and after_ms < _CLOCK_DIFFERENCE_MS:
        yield (
            f"message.timestamp.after.max.ms {after_ms}: Kafka refuses all records where its clock is that much behind "
            f"ours; set at least {_CLOCK_DIFFERENCE_MS}"
        )
