"""Topics in Kafka: created when missing, compared with their contract when they exist, never altered."""

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    IncompatibleBrokerVersion,
    NoError,
    NotControllerError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.admin import CreateTopicsRequest

from hedgelock_ingest.errors import KafkaDenied, TopicMismatch
from hedgelock_ingest.kafka.client import denied, kafka_errors, new_admin, unavailable
from hedgelock_ingest.kafka.routes import contract_of, written_topics
from hedgelock_ingest.kafka.topic_metadata import FoundTopic, find_topics
from hedgelock_ingest.models.topics import CONTRACTS, Topic, TopicContract
from hedgelock_ingest.settings import Settings

REQUEST_TIMEOUT_S = 10.0
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
_BROKERS_DEFAULT = -1
"""Source: Apache Kafka, KIP-464."""


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
    def is_compacted(self) -> bool:
        """Whether Kafka removes older records of a key; where that is unknown, as we would create the topic."""
        expected = "" if self.topic is None else CONTRACTS[self.topic].cleanup
        return "compact" in (expected if self.cleanup is None else self.cleanup)

    @property
    def assumed_max_message_bytes(self) -> int:
        """`max_message_bytes`, or Kafka's default where it is unknown."""
        return self.max_message_bytes or _DEFAULT_MAX_MESSAGE_BYTES


def kafka_name(settings: Settings, topic: Topic) -> str:
    """Return the Kafka name of a topic, from the settings."""
    return str(getattr(settings, topic.setting))


async def ensure_topics(settings: Settings, *, create: bool | None = None) -> list[TopicReport]:
    """
    Create missing topics, if enabled, and report every topic.

    Args:
        create: Overrides `KAFKA_CREATE_TOPICS`.

    Raises:
        KafkaUnavailable: No usable answer within `REQUEST_TIMEOUT_S`.
        KafkaDenied: The user may not create a topic.
        TopicMismatch: Kafka refuses to create a topic.
    """
    create = settings.kafka_create_topics if create is None else create
    async with _admin(settings) as admin:
        reports = await _describe(admin, settings)
        missing = [report for report in reports if report.is_missing]
        if not missing or not create:
            return reports
        await _create(admin, settings, missing)
        names = {report.name for report in missing}
        described = await _describe_created(admin, settings, names)
    return [replace(report, created=True) if report.name in names else report for report in described]


async def check_topics(settings: Settings) -> list[TopicReport]:
    """Report every topic without creating any; raises `KafkaUnavailable` as `ensure_topics` does."""
    return await ensure_topics(settings, create=False)


async def partitions_to_read(settings: Settings, names: Collection[str]) -> dict[str, int]:
    """
    Return the number of partitions of those of the written topics that exist.

    Raises:
        KafkaUnavailable: No usable answer within `REQUEST_TIMEOUT_S`.
        KafkaDenied: The user may not read a topic, so that a missing record would mean nothing.
    """
    reports = [report for report in await check_topics(settings) if report.name in names]
    require(settings, reports, ("Describe", "Read"))
    return {report.name: report.partitions for report in reports if report.exists}


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


@asynccontextmanager
async def _admin(settings: Settings) -> Any:
    admin = new_admin(settings, request_timeout_ms=int(REQUEST_TIMEOUT_S * 1000))
    try:
        with kafka_errors(settings, admin, operation="Describe"):
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                await admin.start()
                yield admin
    finally:
        await admin.close()


async def _describe(admin: AIOKafkaAdminClient, settings: Settings) -> list[TopicReport]:
    names = written_topics(settings)
    found = await find_topics(admin, names)
    configs = await _configs(admin, sorted(name for name, each in found.items() if each.error_code == NoError.errno))
    return [topic_report(settings, topic, name, found[name], configs.get(name, {})) for name, topic in names.items()]


async def _describe_created(admin: AIOKafkaAdminClient, settings: Settings, names: set[str]) -> list[TopicReport]:
    # A broker may not have the metadata yet of a topic that the controller has just created.
    while True:
        reports = await _describe(admin, settings)
        if all(report.exists for report in reports if report.name in names):
            return reports
        await asyncio.sleep(0.05)


async def _configs(admin: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, dict[str, str] | None]:
    """Return the configuration of topics: None where the user may not see it, nothing where the broker has none."""
    if not names:
        return {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    try:
        responses = await admin.describe_configs(resources)
    except IncompatibleBrokerVersion:  # some services with Kafka's protocol do not describe configurations
        return {}
    return {
        name: None if error_code == TopicAuthorizationFailedError.errno else {entry[0]: entry[1] for entry in entries}
        for response in responses
        for error_code, _, _, name, entries in response.resources
    }


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
        replication=found.replication,
        min_insync_replicas=min_insync,
        cleanup=known.get("cleanup.policy"),
        retention_ms=_number(known, "retention.ms"),
        max_message_bytes=_number(known, "max.message.bytes"),
        denied=tuple(lacking),
        differences=(
            *_contract_differences(settings, topic, found.partitions, known),
            *(_replica_differences(settings, found.replication, min_insync) if topic is not None else ()),
            *_refusals(found.replication, min_insync, known),
        ),
    )


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


async def _create(admin: AIOKafkaAdminClient, settings: Settings, missing: Sequence[TopicReport]) -> None:
    names = [report.name for report in missing]
    topics = [_new_topic(settings, name, contract_of(settings, name)) for name in names]
    errors = await _errors_of_creation(admin, topics)
    if not_permitted := [
        name
        for name, (error, _) in errors.items()
        if error in (TopicAuthorizationFailedError, ClusterAuthorizationFailedError)
    ]:
        require(settings, missing, REQUIRED_OPERATIONS)  # which reports all that lacks at once
        raise denied(settings, ["Create"], not_permitted)
    for name, (error, message) in errors.items():
        if error in (NoError, TopicAlreadyExistsError):
            continue
        if error.retriable:
            raise unavailable(settings, f"{error.__name__} while the topic {name} was created")
        raise TopicMismatch(f"Kafka refuses to create the topic {name}: {message or error.__name__}")


async def _errors_of_creation(
    admin: AIOKafkaAdminClient, topics: Sequence[NewTopic]
) -> dict[str, tuple[type[Any], str | None]]:
    """Create topics, and return the class of each one's error, and the broker's message."""
    # Any broker passes this on to the controller, except those of ZooKeeper's time.
    client = admin._client
    request = CreateTopicsRequest(
        create_topic_requests=[admin._convert_new_topic_request(topic) for topic in topics],
        timeout=int(REQUEST_TIMEOUT_S * 1000),
        validate_only=False,
    )
    response = await client.send(client.get_random_node(), request)
    if any(code == NotControllerError.errno for _, code, *_ in response.topic_errors):
        response = await admin.create_topics(topics)
    return {name: (for_code(code), message[0] if message else None) for name, code, *message in response.topic_errors}


def _new_topic(settings: Settings, name: str, contract: TopicContract) -> NewTopic:
    configs = {"cleanup.policy": contract.cleanup, "retention.ms": str(contract.retention_ms)}
    if settings.kafka_topic_min_insync_replicas is not None:
        configs["min.insync.replicas"] = str(settings.kafka_topic_min_insync_replicas)
    topic = NewTopic(name, settings.kafka_topic_partitions, 1, topic_configs=configs)
    # Not as an argument: aiokafka's constructor refuses the broker's default, its request does not.
    topic.replication_factor = settings.kafka_topic_replication or _BROKERS_DEFAULT
    return topic
