"""Broker outages: while it is frozen, killed or not yet started, the journal buffers; Kafka gets everything once."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.processes.stage import staged

TIMINGS = [(0.02, 0.0), (0.3, 0.6), (1.0, 1.5), (0.1, 3.0), (2.0, 5.0), (0.05, 1.1)]
"""Seconds from the broker's freeze to the stream's kill, and from the new start to the thaw."""
SHORT_PRODUCER_TIMEOUT = "4"
"""Seconds after which a producer is replaced, so that several are replaced within one freeze."""


# At the lower rate all frames that wait for the broker are still in memory when the producer is replaced.
@pytest.mark.parametrize(
    ("frozen_s", "rate", "timeout_s"),
    [
        pytest.param(8.0, 400, SHORT_PRODUCER_TIMEOUT, id="given-up"),
        pytest.param(15.0, 400, SHORT_PRODUCER_TIMEOUT, id="given-up-again-and-again", marks=pytest.mark.proof),
        pytest.param(45.0, 1_000, "60", id="patient", marks=pytest.mark.proof),
    ],
)
async def test_frozen_broker_delays_records_without_loss(
    own_kafka: Callable[..., EmbeddedKafka],
    topic_prefix: str,
    tmp_path: Path,
    frozen_s: float,
    rate: float,
    timeout_s: str,
) -> None:
    """Without an answer the lines stay open and memory stays bounded; then all records arrive once, without a gap."""
    broker = await asyncio.to_thread(own_kafka)
    async with staged(broker, topic_prefix, tmp_path, rate=rate, KAFKA_DELIVERY_TIMEOUT=timeout_s) as stage:
        stage.stream.start()
        await stage.stream.ready()
        before_mib = stage.stream.memory_mib()
        broker.freeze()
        try:
            await stage.stream.until_stats("noticed", lambda found: found["kafka"]["state"] != "closed")
            await asyncio.sleep(frozen_s)
            await stage.stream.until_stats(
                "the journal grows", lambda found: found["journal"]["lag_frames"] > rate / 2 * frozen_s, timeout_s=90
            )
            grown_mib = stage.stream.memory_mib() - before_mib
        finally:
            broker.thaw()
        assert grown_mib < 100, f"{grown_mib:.0f} MiB more after {frozen_s:g} s without Kafka"
        began_s = time.monotonic()
        await stage.stream.caught_up()
        print(f"caught up in {time.monotonic() - began_s:.1f} s")
        await stage.all_received()
        proved = await stage.proved()
        assert not proved.gaps, f"gaps were recorded although every line was open: {dict(proved.gaps)}"
        after = await stage.stream.stats()
        assert after["reconnects"] == 0
        assert (after["kafka"]["producers_opened"] > 1) == (timeout_s == SHORT_PRODUCER_TIMEOUT), after["kafka"]


@pytest.mark.parametrize("restarts", [1, pytest.param(2, marks=pytest.mark.proof)])
async def test_killed_broker_receives_everything_after_its_restart(
    own_kafka: Callable[..., EmbeddedKafka], topic_prefix: str, tmp_path: Path, restarts: int
) -> None:
    """A broker that is killed in the middle of batches and restarted on its data gets each record once."""
    broker = await asyncio.to_thread(own_kafka)
    async with staged(broker, topic_prefix, tmp_path) as stage:
        stage.stream.start()
        await stage.stream.ready()
        for _ in range(restarts):
            await asyncio.sleep(1.5)
            await asyncio.to_thread(broker.kill)
            await stage.stream.until_stats("noticed", lambda found: found["kafka"]["state"] != "closed")
            await asyncio.to_thread(broker.restart)
            await stage.stream.ready()
        await asyncio.sleep(1.0)
        await stage.all_received()
        proved = await stage.proved()
        assert not proved.gaps, f"gaps were recorded although every line was open: {dict(proved.gaps)}"


@pytest.mark.proof
async def test_stream_killed_while_the_broker_is_frozen_doubles_nothing(
    own_kafka: Callable[..., EmbeddedKafka], topic_prefix: str, tmp_path: Path, moments: Random
) -> None:
    """Bytes of an ended producer in a frozen broker's sockets arrive late, and are found before publishing resumes."""
    broker = await asyncio.to_thread(own_kafka)
    async with staged(broker, topic_prefix, tmp_path) as stage:
        stage.stream.start()
        await stage.stream.ready()
        for killed_after_s, thawed_after_s in TIMINGS:
            await asyncio.sleep(moments.uniform(0.8, 1.6))
            broker.freeze()
            try:
                await asyncio.sleep(killed_after_s)
                with stage.outage():
                    await stage.stream.kill()
                    stage.stream.start()
                    await asyncio.sleep(thawed_after_s)
                    broker.thaw()
                    await stage.stream.ready()
            finally:
                broker.thaw()
        await asyncio.sleep(1.0)
        await stage.all_received()
        await stage.stream.stopped()
        await stage.proved()


@pytest.mark.proof
async def test_without_kafka_the_lines_open_and_the_journal_takes_the_frames(
    own_kafka: Callable[..., EmbeddedKafka], topic_prefix: str, tmp_path: Path
) -> None:
    """A service that starts before its broker loses no frame of the market."""
    broker = await asyncio.to_thread(own_kafka)
    await asyncio.to_thread(broker.kill)
    async with staged(broker, topic_prefix, tmp_path) as stage:
        stage.stream.start()
        journalled = await stage.stream.until_stats(
            "journalling", lambda found: found["journal"]["durable_position"] > 5_000
        )
        assert journalled["frames_acknowledged"] == 0
        assert journalled["feeds_without_line"] == []
        status, ready = await stage.stream.page("ready")
        assert (status, len(ready["reasons"])) == (503, 1), f"{status}: {ready}"
        assert "Kafka" in ready["reasons"][0]
        await asyncio.to_thread(broker.restart)
        await stage.stream.ready()
        await stage.all_received()
        proved = await stage.proved()
        assert not proved.gaps, f"gaps were recorded although every line was open: {dict(proved.gaps)}"
        assert not (await stage.stream.stats())["records"].get(Topic.INGEST_GAPS)
