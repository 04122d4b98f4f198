"""A window of polls accounts for every slot during an outage of Kafka."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from hedgelock_ingest.defs.polls.slots import PollWindow, slots
from hedgelock_ingest.defs.polls.window import Polled, poll_window
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.rest_messages import Part
from hedgelock_ingest.sandbox.exchange import SimulatedExchange
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest.settings import Settings
from hedgelock_ingest_tests.bybit.rest import settings_for
from hedgelock_ingest_tests.kafka.read_topic import read_topic
from hedgelock_ingest_tests.sandbox.exchange_fixtures import running_exchange

pytestmark = pytest.mark.proof

INTERVAL_MS, SLOTS = 1_000, 14


async def test_window_continues_after_an_outage_of_kafka(
    own_kafka: Callable[..., EmbeddedKafka], topic_prefix: str
) -> None:
    """Earlier polls stay reported, failed ones are reported with their reason, and the remaining slots are polled."""
    broker = await asyncio.to_thread(own_kafka)
    async with running_exchange() as exchange, asyncio.TaskGroup() as group:
        settings = settings_in(exchange, broker, topic_prefix, kafka_delivery_timeout=2)
        begin_ms = (time.time_ns() // 1_000_000 // INTERVAL_MS + 3) * INTERVAL_MS
        window = PollWindow(begin_ms, begin_ms + SLOTS * INTERVAL_MS)
        polling = group.create_task(poll_window(settings, {Part.LOANS: INTERVAL_MS}, window))
        await asyncio.sleep((begin_ms + 2_500) / 1000 - time.time())
        broker.freeze()
        await asyncio.sleep(5)
        broker.thaw()
        polled: Polled = (await polling)[Part.LOANS]
    accounted = len(polled.results) + len(polled.missed) + polled.failures.total()
    assert accounted == len(slots(window, INTERVAL_MS))
    assert polled.failures, "no poll failed during the outage"
    times_s = [result.message.timestamp.timestamp() - begin_ms / 1000 for result in polled.results]
    assert min(times_s) < 2.5, times_s
    assert max(times_s) > 11, f"it did not continue: {times_s}, {polled.failures}"
    records = await read_topic(broker.bootstrap_servers, topic_prefix + Topic.ACCOUNT_RAW)
    assert len(records) >= len(polled.results)


def settings_in(exchange: SimulatedExchange, broker: EmbeddedKafka, prefix: str, **fields: Any) -> Settings:
    names: dict[str, Any] = {topic.setting: prefix + topic.value for topic in Topic}
    return settings_for(exchange, kafka_bootstrap_servers=broker.bootstrap_servers, **names, **fields)
