"""Frames that were received while the machine's clock was wrong."""

import time
from pathlib import Path

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.builders import a_frame, a_trade
from hedgelock_ingest_tests.pipeline.streaming import settings_for, stream_once, values

DAY_NS = 86_400 * 1_000_000_000


async def test_frame_from_the_future_is_published(kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path) -> None:
    """Kafka refuses records more than an hour ahead; without a corrected time all later records would wait forever."""
    settings = settings_for(kafka.bootstrap_servers, topic_prefix)
    ahead = a_frame(a_trade("t1"), received_ns=time.time_ns() + DAY_NS)
    await stream_once(settings, tmp_path, [ahead, a_frame(a_trade("t2"))])

    assert [trade["trade_id"] for trade in await values(settings, Topic.MARKET_TRADES)] == ["t1", "t2"]
