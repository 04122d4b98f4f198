"""Topics in Kafka: created when missing, compared with their contract when they exist, never altered."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError as AiokafkaError
from aiokafka.errors import for_code

from hedgelock_ingest.errors import TopicMismatch
from hedgelock_ingest.kafka.client import client_options, unavailable
from hedgelock_ingest.kafka.routes import contract_of, written_topics
from hedgelock_ingest.models.topics import CONTRACTS, Topic, TopicContract
from hedgelock_ingest.settings import Settings

REQUEST_TIMEOUT_S = 10.0
_TOPIC_ALREADY_EXISTS = 36
_READ_CONFIGS = ("cleanup.policy", "retention.ms", "max.message.bytes", "min.insync.replicas")
_BROKERS_DEFAULT = -1
"""Source: Apache Kafka, KIP-464."""


@dataclass(frozen=True, slots=True)
class TopicReport:
    """
    One topic as it exists in Kafka; `differences` from what we would create, as sentences.

    `topic` is None for a further topic of `KAFKA_ROUTES` that is none of ours: it may have any configuration.
    `min_insync_replicas` is 0 where the broker does not report it, as others than Apache Kafka.
    """

    topic: Topic | None
    name: str
    exists: bool
    created: bool = False
    partitions: int = 0
    replication: int = 0
    min_insync_replicas: int = 0
    cleanup: str = ""
    retention_ms: int = 0
    max_message_bytes: int = 0
    differences: tuple[str, ...] = ()


def kafka_name(settings: Settings, topic: Topic) -> str:
    """Return the Kafka name of a topic, from the settings."""
    return str(getattr(settings, topic.setting))


async def ensure_topics(settings: Settings, *, create: bool | None = None) -> list[TopicReport]:
    """
    Create missing topics, if enabled, and report every topic.

    Args:
        create: Overrides `KAFKA_CREATE_TOPICS`.

    Raises:
        KafkaUnavailable: No answer within `REQUEST_TIMEOUT_S`.
        TopicMismatch: Kafka refuses to create a topic.
    """
    create = settings.kafka_create_topics if create is None else create
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT_S), _admin(settings) as admin:
            reports = await _describe(admin, settings)
            missing = [report for report in reports if not report.exists]
            if not missing or not create:
                return reports
            await _create(admin, settings, missing)
            names = {report.name for report in missing}
            return [_created(report, names) for report in await _describe_created(admin, settings, names)]
    except TimeoutError as error:
        raise unavailable(settings, f"no answer about topics within {REQUEST_TIMEOUT_S:g} s") from error
    except (AiokafkaError, OSError) as error:
        raise unavailable(settings, type(error).__name__) from error


async def check_topics(settings: Settings) -> list[TopicReport]:
    """Report every topic without creating any; raises `KafkaUnavailable` as `ensure_topics` does."""
    return await ensure_topics(settings, create=False)


@asynccontextmanager
async def _admin(settings: Settings) -> Any:
    admin = AIOKafkaAdminClient(**client_options(settings), request_timeout_ms=int(REQUEST_TIMEOUT_S * 1000))
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()


async def _describe(admin: AIOKafkaAdminClient, settings: Settings) -> list[TopicReport]:
    names = written_topics(settings)
    described = {item["topic"]: item for item in await admin.describe_topics(sorted(names))}
    existing = [name for name in sorted(names) if described[name]["error_code"] == 0]
    configs = await _configs(admin, existing)
    return [_report(settings, topic, name, described[name], configs.get(name)) for name, topic in names.items()]


async def _describe_created(admin: AIOKafkaAdminClient, settings: Settings, names: set[str]) -> list[TopicReport]:
    # A broker may not have the metadata yet of a topic that the controller has just created.
    while True:
        reports = await _describe(admin, settings)
        if all(report.exists for report in reports if report.name in names):
            return reports
        await asyncio.sleep(0.05)


async def _configs(admin: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, dict[str, str]]:
    if not names:
        return {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    configs: dict[str, dict[str, str]] = {}
    for response in await admin.describe_configs(resources):
        for resource in response.resources:
            configs[resource[3]] = {entry[0]: entry[1] for entry in resource[4] if entry[0] in _READ_CONFIGS}
    return configs


def _report(
    settings: Settings, topic: Topic | None, name: str, described: dict[str, Any], configs: dict[str, str] | None
) -> TopicReport:
    if configs is None:
        return TopicReport(topic, name, exists=False, differences=("missing",))
    partitions, cleanup, retention_ms = len(described["partitions"]), configs["cleanup.policy"], configs["retention.ms"]
    replication = min((len(partition["replicas"]) for partition in described["partitions"]), default=0)
    min_insync = int(configs.get("min.insync.replicas", 0))
    differences: list[str] = []
    if topic is not None:
        differences += _contract_differences(settings, CONTRACTS[topic], partitions, cleanup, int(retention_ms))
        differences += _replica_differences(settings, replication, min_insync)
    elif "compact" in cleanup:
        differences.append(f"cleanup.policy {cleanup}: copies are deleted when others of the same key follow")
    if min_insync > replication:
        differences.append(
            f"min.insync.replicas {min_insync} with replication {replication}, so that Kafka accepts no record"
        )
    return TopicReport(
        topic,
        name,
        exists=True,
        partitions=partitions,
        replication=replication,
        min_insync_replicas=min_insync,
        cleanup=cleanup,
        retention_ms=int(retention_ms),
        max_message_bytes=int(configs["max.message.bytes"]),
        differences=tuple(differences),
    )


def _contract_differences(
    settings: Settings, contract: TopicContract, partitions: int, cleanup: str, retention_ms: int
) -> Iterator[str]:
    if partitions != settings.kafka_topic_partitions:
        yield f"{partitions} partitions, expected {settings.kafka_topic_partitions}"
    if set(cleanup.split(",")) != set(contract.cleanup.split(",")):
        yield f"cleanup.policy {cleanup}, expected {contract.cleanup}"
    if retention_ms != contract.retention_ms:
        yield f"retention.ms {retention_ms}, expected {contract.retention_ms}"


def _replica_differences(settings: Settings, replication: int, min_insync: int) -> Iterator[str]:
    if settings.kafka_topic_replication not in (None, replication):
        yield f"replication {replication}, expected {settings.kafka_topic_replication}"
    if min_insync and settings.kafka_topic_min_insync_replicas not in (None, min_insync):
        yield f"min.insync.replicas {min_insync}, expected {settings.kafka_topic_min_insync_replicas}"


async def _create(admin: AIOKafkaAdminClient, settings: Settings, missing: Sequence[TopicReport]) -> None:
    names = [report.name for report in missing]
    response = await admin.create_topics([_new_topic(settings, name, contract_of(settings, name)) for name in names])
    for name, code, *message in response.topic_errors:
        if code not in (0, _TOPIC_ALREADY_EXISTS):
            raise TopicMismatch(f"Kafka refuses to create the topic {name}: {(message or [None])[0] or for_code(code)}")


def _new_topic(settings: Settings, name: str, contract: TopicContract) -> NewTopic:
    configs = {"cleanup.policy": contract.cleanup, "retention.ms": str(contract.retention_ms)}
    if settings.kafka_topic_min_insync_replicas is not None:
        configs["min.insync.replicas"] = str(settings.kafka_topic_min_insync_replicas)
    topic = NewTopic(name, settings.kafka_topic_partitions, 1, topic_configs=configs)
    # Not as an argument: aiokafka's constructor refuses the broker's default, its request does not.
    topic.replication_factor = settings.kafka_topic_replication or _BROKERS_DEFAULT
    return topic


def _created(report: TopicReport, names: set[str]) -> TopicReport:
    if report.name not in names:
        return report
    fields = {name: getattr(report, name) for name in TopicReport.__slots__}
    return TopicReport(**{**fields, "created": True})
