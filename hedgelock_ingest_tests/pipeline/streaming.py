"""A stream without lines: frames journalled by a test are translated and published by the real components."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hedgelock_ingest.clock import SystemClock
from hedgelock_ingest.journal import Journal
from hedgelock_ingest.kafka.aiokafka_cluster import kafka_publisher
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.pipeline.options import StreamOptions
from hedgelock_ingest.pipeline.receiver import Receiver
from hedgelock_ingest.pipeline.stream import Stream
from hedgelock_ingest.protocol.frames import Frame
from hedgelock_ingest.settings import Settings
from hedgelock_ingest_tests.kafka.read_topic import read_topic
from hedgelock_ingest_tests.sandbox.exchange_fixtures import eventually

OPTIONS = StreamOptions(state_depth=50, state_interval_ms=0, stop_timeout_s=10)
MAX_BYTES = 10_000_000


class NoLine:
    """A source that delivers nothing."""

    name = "none"

    def __init__(self) -> None:
        self._stopped = asyncio.Event()

    def pause(self) -> None:
        """Do nothing; no connection is open."""

    def resume(self) -> None:
        """Do nothing; no connection is closed."""

    def stop(self) -> None:
        """End `run`."""
        self._stopped.set()

    async def run(self) -> None:
        """Wait for `stop`."""
        await self._stopped.wait()


def settings_for(bootstrap_servers: str, prefix: str) -> Settings:
    """Return settings for a broker, with topic names under a prefix."""
    names = {topic.setting: prefix + topic.value for topic in Topic}
    return Settings(kafka_bootstrap_servers=bootstrap_servers, **names)  # type: ignore[arg-type]


def stream_of(settings: Settings, journal: Journal) -> Stream:
    """Give the stream of a journal whose lines bring nothing."""
    clock = SystemClock()
    arrived = asyncio.Event()
    receiver = Receiver([], arrived.set, clock=clock)
    publisher = kafka_publisher(settings, journal.journal_id)
    return Stream(journal, publisher, receiver, [NoLine()], OPTIONS, arrived=arrived, clock=clock)


async def stream_once(
    settings: Settings, folder: Path, frames: Sequence[Frame] = (), *, kind: type[Journal] = Journal
) -> None:
    """Open the journal, append frames, publish everything, save, and stop."""
    journal = kind.open(folder, max_bytes=MAX_BYTES)
    try:
        if frames:
            await journal.append(frames)
        stream = stream_of(settings, journal)
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(stream.run(stop))
            await eventually(lambda: stream.stats.producer_opened > 0 and stream.stats.lag_frames == 0)
            stop.set()
    finally:
        await journal.close(clean=False)


async def values(settings: Settings, topic: Topic) -> list[dict[str, Any]]:
    """Read the values of a topic to its end."""
    records = await read_topic(settings.kafka_bootstrap_servers, settings.topic(topic))
    return [json.loads(record.value or b"") for record in records]
