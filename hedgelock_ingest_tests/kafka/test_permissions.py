"""Permissions: what lacks is found before it is needed, and named with user, operation and resource."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hedgelock_ingest.audit.check import Finding, Severity, topic_findings
from hedgelock_ingest.errors import KafkaDenied, KafkaUnavailable
from hedgelock_ingest.kafka.aiokafka_cluster import kafka_publisher
from hedgelock_ingest.kafka.consumer import read_span
from hedgelock_ingest.kafka.probe import probe_kafka
from hedgelock_ingest.kafka.tail import tail
from hedgelock_ingest.kafka.topic_admin import check_topics, ensure_topics
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.settings import Settings
from hedgelock_ingest_tests.kafka.records import a_record
from hedgelock_ingest_tests.kafka.secured_broker import SecuredBroker, secured_broker

pytestmark = pytest.mark.proof

INGEST = "kafka-acls --add --allow-principal User:ingest"
PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBroker]:
    """Start a broker that refuses what is not permitted."""
    with secured_broker(tmp_path_factory.mktemp("keys")) as running:
        yield running


async def opened(settings: Settings) -> None:
    """Open a publisher as a first start does, publish a record, and close it."""
    publisher = kafka_publisher(settings, "0" * 32)
    try:
        await publisher.open(None, settle=False)
        await publisher.publish([a_record(1)])
    finally:
        await publisher.close()


async def findings(settings: Settings) -> list[Finding]:
    """Return what `check` reports about topics."""
    return list(topic_findings(await check_topics(settings), settings))


async def test_first_start_finds_what_it_and_the_next_one_need(broker: SecuredBroker, topic_prefix: str) -> None:
    """
    The command of each error allows what lacks, until the stream runs: first to see, then to write, and to read back.

    DescribeConfigs is not needed: the configuration is unknown then, and Kafka's defaults are assumed.
    """
    settings, acl = broker.settings_of("ingest", topic_prefix), f"--topic {topic_prefix}"
    await ensure_topics(broker.settings("PLAINTEXT", topic_prefix))
    with pytest.raises(KafkaDenied, match="User:ingest Describe, Read, Write on 11 topics") as nothing_allowed:
        await opened(settings)
    assert str(nothing_allowed.value) in [text for _, _, text in await findings(settings)]
    await broker.allow(f"{INGEST} --operation Write {acl} --resource-pattern-type prefixed", settings)
    with pytest.raises(KafkaDenied, match="User:ingest Read on 11 topics") as unreadable:
        await opened(settings)
    await broker.allow(str(unreadable.value).partition("allow it with: ")[2], settings)
    await opened(settings)

    (report, *_) = await check_topics(settings)
    assert (report.cleanup, report.retention_ms, report.max_message_bytes) == (None, None, None)
    assert (report.denied, report.differences) == (("DescribeConfigs",), ())
    (finding,) = await findings(settings)
    assert finding.severity is Severity.WARNING
    assert "defaults are assumed: Kafka denies User:ingest DescribeConfigs on 11 topics" in finding.text
    await broker.allow(finding.text.partition("allow it with: ")[2], settings)
    assert [each.denied for each in await check_topics(settings)] == [()] * 11
    assert await findings(settings) == []


async def test_topics_that_may_not_be_created_are_named(broker: SecuredBroker, topic_prefix: str) -> None:
    """The start goes on as soon as the operator has allowed it."""
    settings, acl = broker.settings_of("ingest", topic_prefix), f"--topic {topic_prefix}"
    prefixed = "--resource-pattern-type prefixed"
    await broker.allow(f"{INGEST} --operation Write --operation Read {acl} {prefixed}", settings)
    assert [each.severity for each in await findings(settings)] == [Severity.FAILED, Severity.OK]
    with pytest.raises(KafkaDenied, match="User:ingest Create on 11 topics"):
        await opened(settings)
    await broker.allow(f"{INGEST} --operation Create {acl} {prefixed}", settings)
    await opened(settings)


async def test_reader_without_permission_sees_no_empty_topic(broker: SecuredBroker, topic_prefix: str) -> None:
    """`gaps` would report that nothing is missing."""
    settings = broker.settings_of("reader", topic_prefix)
    await ensure_topics(broker.settings("PLAINTEXT", topic_prefix))
    with pytest.raises(KafkaDenied, match=r"User:reader .*Read"):
        [group async for group in read_span(settings, [Topic.INGEST_GAPS])]
    gaps = topic_prefix + Topic.INGEST_GAPS.value
    await broker.allow(f"kafka-acls --add --allow-principal User:reader --operation Read --topic {gaps}", settings)
    assert [group async for group in read_span(settings, [Topic.INGEST_GAPS])] == []
    trades = topic_prefix + Topic.MARKET_TRADES.value
    with pytest.raises(KafkaDenied, match=f"User:reader Read on the topic {trades}"):
        [record async for record in tail(settings, Topic.MARKET_TRADES.value)]
    await broker.allow(
        f"kafka-acls --add --allow-principal User:reader --operation Describe --topic {trades}", settings
    )
    await opened(broker.settings("PLAINTEXT", topic_prefix))
    with pytest.raises(KafkaDenied, match=f"User:reader Read on the topic {trades}"):
        [record async for record in tail(settings, Topic.MARKET_TRADES.value)]


async def test_commands_of_the_settings_page_suffice(broker: SecuredBroker) -> None:
    """The page lists what is needed; these are its lines, word by word."""
    page = PAGE.read_text().replace("\\\n", " ")
    lines = re.findall(r"^kafka-acls .*$", page, re.MULTILINE)
    settings = broker.settings_of("ingest")
    assert lines
    for line in lines:
        await broker.allow(line, settings)
    await opened(settings)
    assert [each.denied for each in await check_topics(settings)] == [()] * 11


@pytest.mark.parametrize(
    ("listener", "fields", "words"),
    [
        ("LOST", {}, ["not at the address that it advertises: broker 1 at 127.0.0.1:1", "advertised.listeners"]),
        ("NAMELESS", {}, ["broker 1 at broker.invalid:9092 does not resolve", "advertised.listeners"]),
        ("CONTROLLER", {}, ["as a controller does", "use the port of a broker in KAFKA_BOOTSTRAP_SERVERS"]),
        ("LOGIN", {}, ["as a port where users log in does", "KAFKA_SECURITY_PROTOCOL=SASL_PLAINTEXT"]),
        ("TLS", {}, ["expects TLS", "KAFKA_SECURITY_PROTOCOL is PLAINTEXT"]),
        ("TLS", {"kafka_security_protocol": "SSL"}, ["certificate that is not accepted here", "KAFKA_SSL_CAFILE"]),
        ("PLAINTEXT", {"kafka_security_protocol": "SSL"}, ["as a port without TLS or", "PROTOCOL is SSL"]),
    ],
)  # fmt: skip
async def test_each_wrong_listener_is_named(
    broker: SecuredBroker, listener: str, fields: dict[str, Any], words: list[str]
) -> None:
    """The message says what is there, and which setting to change, of Kafka or of ours."""
    with pytest.raises(KafkaUnavailable) as failed:
        await probe_kafka(broker.settings(listener, **fields), 10)
    assert [each for each in words if each not in str(failed.value)] == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kafka_sasl_password": "wrong"}, ["refuses the login of user ingest with PLAIN", "KAFKA_SASL_PASSWORD"]),
        ({"kafka_sasl_mechanism": "SCRAM-SHA-256"}, ["does not offer the login mechanism SCRAM-SHA-256"]),
        ({"kafka_bootstrap_servers": "PLAINTEXT"}, ["as a port without login does", "PROTOCOL=PLAINTEXT"]),
    ],
)  # fmt: skip
async def test_each_refused_login_is_named(broker: SecuredBroker, fields: dict[str, Any], words: list[str]) -> None:
    """Wrong password, wrong mechanism, a port without login."""
    if listener := fields.get("kafka_bootstrap_servers"):
        fields = {"kafka_bootstrap_servers": broker.address(listener)}
    settings = Settings.model_validate(broker.settings_of("ingest").model_dump() | fields)
    with pytest.raises(KafkaUnavailable) as failed:
        await probe_kafka(settings, 10)
    assert [each for each in words if each not in str(failed.value)] == []
    assert "wrong" not in str(failed.value)


@pytest.mark.parametrize(
    ("listener", "host", "words"),
    [
        ("TLS", "localhost", "certificate for other names"),
        ("CERTIFICATE", "127.0.0.1", "KAFKA_SSL_CERTFILE"),
    ],
)
async def test_each_side_of_a_certificate_is_named(broker: SecuredBroker, listener: str, host: str, words: str) -> None:
    """The broker's is for another name, or ours is missing."""
    fields: dict[str, Any] = {"kafka_security_protocol": "SSL", "kafka_ssl_cafile": broker.ca_file}
    servers = f"{host}:{broker.ports[listener]}"
    with pytest.raises(KafkaUnavailable, match=words):
        await probe_kafka(broker.settings(listener, **fields, kafka_bootstrap_servers=servers), 10)
