"""Translation ahead: in a burst the next group is translated before Kafka has answered for the previous one."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from hedgelock_ingest.clock import SystemClock
from hedgelock_ingest.errors import KafkaUnavailable
from hedgelock_ingest.journal import Journal
from hedgelock_ingest.kafka.aiokafka_cluster import AiokafkaCluster
from hedgelock_ingest.kafka.ports import KafkaTiming
from hedgelock_ingest.kafka.publisher import Publisher, refuse_none
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.pipeline.receiver import Receiver
from hedgelock_ingest.pipeline.stream import Stream
from hedgelock_ingest.protocol.line_events import LineKey
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest.translate.record import Keep, Record
from hedgelock_ingest_tests.builders import a_trade, messages_of
from hedgelock_ingest_tests.pipeline.streaming import MAX_BYTES, OPTIONS, NoLine, settings_for, stream_once, values
from hedgelock_ingest_tests.sandbox.exchange_fixtures import eventually

LINE = LineKey("linear-a", 1)
CHANNEL = "publicTrade.BTCUSDT"
TRADES = 15_000


class _FailingPublisher(Publisher):
    """Fails for some groups, two of which had arrived; counts the groups and the most records in one."""

    published = 0
    at_once = 0

    async def publish(self, records: Sequence[Record], keep: Keep = refuse_none) -> None:
        self.published += 1
        self.at_once = max(self.at_once, len(records))
        if self.published in (4, 6, 10, 12):
            raise KafkaUnavailable("nothing arrived")
        await super().publish(records, keep)
        if self.published in (8, 14):
            raise KafkaUnavailable("the answer is lost")


async def test_group_that_was_translated_ahead_is_published_once_after_a_failure_of_the_previous_one(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """The state that translated it is discarded with the failed answer, so it is translated again from the journal."""
    settings = settings_for(kafka.bootstrap_servers, topic_prefix)
    journal = Journal.open(tmp_path, max_bytes=MAX_BYTES)
    clock, timing = SystemClock(), KafkaTiming()
    cluster = AiokafkaCluster(settings, clock, timing)
    publisher = _FailingPublisher(settings, journal.journal_id, cluster=cluster, clock=clock, timing=timing)
    names = [f"t{number}" for number in range(TRADES)]
    arrived = asyncio.Event()
    receiver = Receiver([f"linear:{CHANNEL}"], arrived.set, clock=SystemClock())
    stream = Stream(journal, publisher, receiver, [NoLine()], OPTIONS, arrived=arrived, clock=SystemClock())
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(stream.run(stop))
        await eventually(lambda: stream.stats.producer_opened > 0)
        receiver.line_opened(LINE, [CHANNEL], lambda channel: None)
        receiver.channel_confirmed(LINE, CHANNEL)
        for name in names:
            receiver.frames_received(LINE, [a_trade(name)], messages_of([a_trade(name)]), 1)
        await eventually(lambda: stream.stats.frames_acknowledged >= TRADES and stream.stats.lag_frames == 0)
        stop.set()
    await stream_once(settings, tmp_path)

    assert publisher.published > 14, "no answer was lost twice"
    assert publisher.at_once >= 500, "nothing waited while Kafka had not answered"
    assert [trade["trade_id"] for trade in await values(settings, Topic.MARKET_TRADES)] == names
