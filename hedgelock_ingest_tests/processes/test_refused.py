"""Refused records: they are kept in the journal's table, and all other records arrive."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from hedgelock_ingest.journal import dead_letters_in
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest.translate.record import RefusedRecord
from hedgelock_ingest_tests.kafka.topics import alter_largest_age
from hedgelock_ingest_tests.processes.evidence import PublishedRecord
from hedgelock_ingest_tests.processes.proof import judge, prove
from hedgelock_ingest_tests.processes.stage import staged

# Our own snapshots of a book with 50 levels a side are larger when compressed, most of Bybit's deltas are smaller.
LARGEST_BYTES = 1_800


async def _lower_largest_message(bootstrap_servers: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        configs = {"max.message.bytes": str(LARGEST_BYTES)}
        for answer in await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs)]):
            assert all(resource[0] == 0 for resource in answer.resources), answer
    finally:
        await admin.close()


async def _delete(bootstrap_servers: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        await admin.delete_topics([topic])
    finally:
        await admin.close()


def _as_published(refused: RefusedRecord) -> PublishedRecord:
    topic, value = Topic(refused.topic), msgspec.json.decode(refused.body)
    key = f"{value['category']}:{value['symbol']}"
    return PublishedRecord(topic, -1, -1, key, value, {}, refused.position, refused.record_index)


@pytest.mark.proof
async def test_records_that_a_topic_refuses_are_kept(kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path) -> None:
    """After a topic's largest message is lowered, the refused records are complete in the journal and only there."""
    async with staged(kafka, topic_prefix, tmp_path, rate=500) as stage:
        stage.stream.start()
        await stage.stream.ready()
        await stage.stream.until_stats("busy", lambda found: found["frames_acknowledged"] > 1_000)
        await _lower_largest_message(kafka.bootstrap_servers, stage.topic(Topic.MARKET_ORDER_BOOKS))
        await stage.stream.until_stats("refusing", lambda found: found["records_refused"] >= 5)
        refusing = await stage.stream.stats()
        await stage.stream.until_stats(
            "going on", lambda found: found["frames_acknowledged"] > refusing["frames_acknowledged"] + 1_000
        )
        await stage.all_received()
        stats = await stage.stream.stats()
        letters = dead_letters_in(stage.stream.journal / "main")
        evidence = await stage.evidence()
    assert stats["kafka"]["producers_opened"] == 1, stats["kafka"]
    assert len(letters) == stats["records_refused"]
    assert all(letter.topic == Topic.MARKET_ORDER_BOOKS and "bytes" in letter.reason for letter in letters)
    assert all(len(letter.body) > LARGEST_BYTES // 3 for letter in letters), "small records were refused"
    evidence.refused = [_as_published(letter) for letter in letters]
    proved = prove(evidence)
    print(proved)
    assert not proved.gaps


@pytest.mark.proof
async def test_records_that_became_too_old_in_an_outage_arrive(
    own_kafka: Callable[..., EmbeddedKafka], topic_prefix: str, tmp_path: Path
) -> None:
    """A topic refuses records of more than 10 s; Kafka is frozen for 25 s."""
    broker = await asyncio.to_thread(own_kafka)
    async with staged(broker, topic_prefix, tmp_path, rate=500) as stage:
        stage.stream.start()
        await stage.stream.ready()
        await alter_largest_age(broker.bootstrap_servers, stage.topic(Topic.MARKET_TRADES), 10_000)
        opened = (await stage.stream.stats())["kafka"]["producers_opened"]
        broker.freeze()
        try:
            await asyncio.sleep(25.0)
        finally:
            broker.thaw()
        await stage.stream.caught_up()
        await stage.all_received()
        stats = await stage.stream.stats()
        proved = await stage.proved()
    print(proved)
    assert not proved.gaps
    assert (stats["records_refused"], stats["kafka"]["producers_opened"]) == (0, opened)


@pytest.mark.proof
async def test_deleted_topic_stops_no_other(kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path) -> None:
    """It is created again, and gets in order what came since; the producer stays, and nothing else is missing."""
    async with staged(kafka, topic_prefix, tmp_path, rate=500) as stage:
        stage.stream.start()
        await stage.stream.ready()
        opened = (await stage.stream.stats())["kafka"]["producers_opened"]
        await _delete(kafka.bootstrap_servers, stage.topic(Topic.MARKET_TRADES))
        before = await stage.stream.stats()
        await stage.stream.until_stats(
            "trades are translated",
            lambda found: found["records"]["market-trades"] > before["records"]["market-trades"] + 1_000,
        )
        await stage.all_received()
        stats = await stage.stream.stats()
        evidence = await stage.evidence()
    judge(evidence)
    assert [finding for finding in evidence.findings if "publicTrade" not in finding] == []
    trades = evidence.records[Topic.MARKET_TRADES]
    names = [(record.partition, record.position, record.index) for record in trades]
    assert len(trades) > 500
    assert names == sorted(set(names))
    assert (stats["records_refused"], stats["kafka"]["producers_opened"]) == (0, opened)
