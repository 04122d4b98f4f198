"""A shard with an account, running in the test's event loop between a simulated exchange and a real Kafka."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.exchange import SimulatedExchange
from hedgelock_ingest.sandbox.exchange.keys import KEYS, ApiKey
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest.service import Service
from hedgelock_ingest.settings import TOPIC_FIELDS, Settings
from hedgelock_ingest_tests.bybit.rest import settings_for
from hedgelock_ingest_tests.kafka.read_topic import read_topic


def account_settings(
    exchange: SimulatedExchange,
    kafka: EmbeddedKafka | None,
    prefix: str,
    folder: Path,
    key: ApiKey | None = KEYS["read-only"],
    **fields: Any,
) -> Settings:
    """Return settings of a shard with one linear symbol's trades, the account, and separate topics."""
    topics = {field: prefix + str(Settings.model_fields[field].default) for field in TOPIC_FIELDS}
    return settings_for(
        exchange,
        key,
        **{
            "kafka_bootstrap_servers": kafka.bootstrap_servers if kafka else "127.0.0.1:1",
            "journal_directory": folder,
            "bybit_spot_symbols": (),
            "bybit_linear_symbols": ("BTCUSDT",),
            "bybit_public_feeds": ("publicTrade",),
            "bybit_reconnect_initial_delay": 0.05,
            "bybit_reconnect_max_delay": 0.2,
            "bybit_collateral_poll_interval": 0.5,
            "bybit_loan_poll_interval": 0.5,
            "stop_timeout": 5,
            **topics,
            **fields,
        },
    )


@dataclass
class RunningShard:
    """A running shard, with access to its topics."""

    service: Service
    settings: Settings
    task: asyncio.Task[None]

    async def records(self, topic: Topic) -> list[Mapping[str, Any]]:
        """Return the values of a topic's records, each decoded."""
        name = self.settings.topic(topic.value)
        found = await read_topic(self.settings.kafka_bootstrap_servers, name)
        return [json.loads(record.value) for record in found if record.value is not None]

    async def caught_up(self) -> None:
        """Wait until Kafka has acknowledged all received frames."""
        async with asyncio.timeout(20):
            while self.service.receiver.waiting or self.service.stream.stats.lag_frames:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@asynccontextmanager
async def running_shard(settings: Settings) -> AsyncIterator[RunningShard]:
    """Run a shard; it drains at the end, and its error is raised."""
    stop = asyncio.Event()
    service = Service(settings, "main")
    task = asyncio.create_task(service.run(stop))
    try:
        yield RunningShard(service, settings, task)
    finally:
        stop.set()
        await asyncio.wait_for(task, 30)
