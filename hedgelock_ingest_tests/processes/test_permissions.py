"""A user of Kafka who lacks permissions: the lines stay open, and records follow once an operator allows them."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest_tests.kafka.secured_broker import PASSWORD, SecuredBroker, secured_broker
from hedgelock_ingest_tests.processes.stage import staged

pytestmark = pytest.mark.proof

OF_INGEST = "kafka-acls --add --allow-principal User:ingest --resource-pattern-type prefixed"


def is_reported(words: str, statistics: dict[str, Any]) -> bool:
    """Return whether the statistics give these words as the reason why Kafka takes no records."""
    return words in (statistics["kafka"]["reason"] or "")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBroker]:
    """Start a broker that refuses what is not permitted."""
    with secured_broker(tmp_path_factory.mktemp("keys")) as running:
        yield running


def login(broker: SecuredBroker) -> dict[str, Any]:
    """Return the settings of a user with permissions."""
    return {
        "KAFKA_BOOTSTRAP_SERVERS": broker.address("LOGIN"),
        "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "KAFKA_SASL_USERNAME": "ingest",
        "KAFKA_SASL_PASSWORD": PASSWORD,
    }


async def test_stream_waits_for_permissions_with_open_lines(
    broker: SecuredBroker, topic_prefix: str, tmp_path: Path
) -> None:
    """The pages name user, operation and command; nothing is lost, and DescribeConfigs is never needed."""
    async with staged(broker.kafka, topic_prefix, tmp_path, rate=200, **login(broker)) as stage:
        stage.stream.start()
        settings = broker.settings_of("ingest", topic_prefix)

        for operations, lacking in (
            ("", "Describe, Read, Write on 11 topics"),
            ("--operation Describe", "Create, Read, Write on 11 topics"),
            ("--operation Create --operation Write", "Read on 11 topics"),
            ("--operation Read", None),
        ):
            if operations:
                await broker.allow(f"{OF_INGEST} {operations} --topic {topic_prefix}", settings)
            if lacking:
                await stage.stream.until_stats(lacking, partial(is_reported, f"User:ingest {lacking}; allow it"))
        await stage.stream.ready()
        await stage.all_received()
        proved = await stage.proved()
        assert not proved.gaps


async def test_topic_without_permission_stops_no_other(
    broker: SecuredBroker, topic_prefix: str, tmp_path: Path
) -> None:
    """Also when Kafka is lost meanwhile, so that the tails of the topics are read back; nothing is lost or doubled."""
    operations = "--operation Create --operation Read --operation Write"
    await broker.allow(f"{OF_INGEST} {operations} --topic {topic_prefix}", broker.settings_of("ingest", topic_prefix))
    async with staged(
        broker.kafka, topic_prefix, tmp_path, rate=200, KAFKA_DELIVERY_TIMEOUT="3", **login(broker)
    ) as stage:
        topic = stage.topic(Topic.MARKET_TRADES)

        def is_blocked(statistics: dict[str, Any]) -> bool:
            return topic in statistics["kafka"]["blocked_topics"]

        stage.stream.start()
        await stage.stream.ready()
        await broker.deny("User:ingest", topic)
        await stage.stream.until_stats("the topic is blocked", is_blocked)
        opened = (await stage.stream.stats())["kafka"]["producers_opened"]
        broker.kafka.freeze()
        try:
            await stage.stream.until_stats("Kafka is lost", lambda found: found["kafka"]["state"] != "closed")
        finally:
            broker.kafka.thaw()
        await stage.stream.until_stats("reopened", lambda found: found["kafka"]["producers_opened"] > opened)
        before = await stage.stream.stats()
        await stage.stream.until_stats(
            "the others go on",
            lambda found: (
                is_blocked(found)
                and found["records"]["market-order-books"] > before["records"]["market-order-books"] + 500
            ),
        )
        await broker.deny_no_more("User:ingest", topic)
        await stage.stream.until_stats("the topic is not blocked", lambda found: not is_blocked(found))
        await stage.stream.caught_up()
        await stage.all_received()
        proved = await stage.proved()
    print(proved)
    assert not proved.gaps
