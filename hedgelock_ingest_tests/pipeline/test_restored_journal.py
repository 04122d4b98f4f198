"""A journal restored from an older copy, which assigns positions again that are already in Kafka."""

import os
import shutil
from pathlib import Path

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.builders import a_frame, a_trade
from hedgelock_ingest_tests.pipeline.streaming import settings_for, stream_once, values


async def test_frames_at_positions_that_are_already_in_kafka_are_published(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """The earlier record of the same position came from another frame, so the new one is no duplicate."""
    settings = settings_for(kafka.bootstrap_servers, topic_prefix)
    journal, copy = tmp_path / "journal", tmp_path / "copy"
    trades = [a_frame(a_trade(f"t{number}"), trace=os.urandom(16)) for number in range(6)]
    await stream_once(settings, journal, trades[:2])
    shutil.copytree(journal, copy)
    await stream_once(settings, journal, trades[2:4])
    shutil.rmtree(journal)
    shutil.copytree(copy, journal)
    await stream_once(settings, journal, trades[4:])
    await stream_once(settings, journal)

    assert [trade["trade_id"] for trade in await values(settings, Topic.MARKET_TRADES)] == [f"t{n}" for n in range(6)]
