"""Topics in Kafka: created when missing, compared with their contract when they exist, never altered."""

import asyncio
from collections.abc import Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
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
    for_code,
)
from aiokafka.protocol.admin import CreateTopicsRequest

from hedgelock_ingest.errors import TopicMismatch
from hedgelock_ingest.kafka.client import denied, kafka_errors, new_admin, unavailable
from hedgelock_ingest.kafka.routes import contract_of, written_topics
from hedgelock_ingest.kafka.topic_metadata import find_topics
from hedgelock_ingest.kafka.topic_reports import REQUIRED_OPERATIONS, TopicReport, require, topic_report
from hedgelock_ingest.models.topics import Topic, TopicContract
from hedgelock_ingest.settings import Settings

REQUEST_TIMEOUT_S = 10.0
_BROKERS_DEFAULT = -1
"""Source: Apache Kafka, KIP-464."""


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


async def require_topic(settings: Settings, topic: Topic) -> None:
    """
    Check that a topic exists.

    Raises:
        KafkaUnavailable: No usable answer within `REQUEST_TIMEOUT_S`.
        TopicMismatch: The topic does not exist yet.
    """
    name = kafka_name(settings, topic)
    if name in {report.name for report in await check_topics(settings) if report.is_missing}:
        raise missing_topic(settings, name)


def missing_topic(settings: Settings, name: str) -> TopicMismatch:
    """Return the error for one of the written topics that does not exist yet."""
    ways = (
        '"hedgelock-ingest run" or "hedgelock-ingest topics"'
        if settings.kafka_create_topics
        else ('"hedgelock-ingest topics --create"')
    )
    return TopicMismatch(f'no topic "{name}" in Kafka yet; {ways} creates it')


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
    # A broker may not have the metadata, or a leader, yet of a topic that the controller has just created.
    while True:
        reports = await _describe(admin, settings)
        if all(report.exists and not report.leaderless for report in reports if report.name in names):
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
