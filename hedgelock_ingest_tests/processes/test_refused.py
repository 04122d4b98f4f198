"""Refused records: they are kept in the journal's table, and all other records arrive."""

from pathlib import Path

import msgspec
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from hedgelock_ingest.journal import dead_letters_in
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest.translate.record import RefusedRecord
from hedgelock_ingest_tests.processes.evidence import PublishedRecord
from hedgelock_ingest_tests.processes.proof import prove
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
    assert stats["kafka"]["producers_opened"] >= 2, stats["kafka"]
    assert len(letters) == stats["records_refused"]
    assert all(letter.topic == Topic.MARKET_ORDER_BOOKS and "bytes" in letter.reason for letter in letters)
    assert all(len(letter.body) > LARGEST_BYTES // 3 for letter in letters), "small records were refused"
    evidence.refused = [_as_published(letter) for letter in letters]
    proved = prove(evidence)
    print(proved)
    assert not proved.gaps
