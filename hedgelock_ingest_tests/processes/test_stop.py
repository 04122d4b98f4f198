"""Stops: received frames are drained, undelivered ones are kept, and the next start continues from there."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.processes.stage import staged

DRAIN_TIMEOUT_S = 20.0
"""Many times what draining takes when nothing blocks it."""
STOP_TIMEOUT_S = 5.0
BEYOND_S = 5.0
"""How long closing Kafka and the journal may take after the deadline for draining."""


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGTERM, id="sigterm"),
        pytest.param(signal.SIGINT, id="sigint", marks=pytest.mark.proof),
    ],
)
async def test_stop_under_load_drains_and_the_next_start_continues(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path, number: signal.Signals
) -> None:
    """After exit code 0 all received frames are in Kafka, none twice; the time stopped is a gap of each feed."""
    async with staged(
        kafka, topic_prefix, tmp_path, rate=2_000, BYBIT_LINES="2", STOP_TIMEOUT=f"{DRAIN_TIMEOUT_S:g}"
    ) as stage:
        stage.stream.start()
        await stage.stream.ready()
        await stage.stream.until_stats("busy", lambda found: found["frames_acknowledged"] > 4_000)
        with stage.outage():
            took_s = await stage.stream.stopped(number)
            stopped = await stage.proved()
            stage.stream.start()
            await stage.stream.ready()
        await stage.stream.until_stats("busy again", lambda found: found["frames_acknowledged"] > 4_000)
        await stage.gaps_recorded()
        await stage.stream.stopped(number)
        proved = await stage.proved()
    assert took_s < DRAIN_TIMEOUT_S, f"draining took {took_s:.1f} s"
    assert stopped.lost_unread == proved.lost_unread == 0, "frames were written to a line that closed, and not read"
    assert not stopped.gaps
    assert dict(proved.gaps) == dict.fromkeys(stage.feeds, 1)


@pytest.mark.proof
async def test_second_signal_leaves_the_stop_clean(kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path) -> None:
    """A second signal cannot turn a clean stop into an unclean one."""
    async with staged(kafka, topic_prefix, tmp_path, rate=2_000) as stage:
        stage.stream.start()
        await stage.stream.ready()
        await stage.stream.until_stats("busy", lambda found: found["frames_acknowledged"] > 4_000)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            stage.stream.send(number)
        await stage.stream.stopped()
        proved = await stage.proved()
    assert proved.lost_unread == 0
    assert not proved.gaps


@pytest.mark.proof
async def test_stop_with_a_frozen_broker_leaves_the_rest_to_the_journal(
    own_kafka: Callable[..., EmbeddedKafka], topic_prefix: str, tmp_path: Path
) -> None:
    """A stop is bounded whatever Kafka does; the next start delivers once what could not be delivered."""
    broker = await asyncio.to_thread(own_kafka)
    async with staged(broker, topic_prefix, tmp_path, rate=2_000, STOP_TIMEOUT=f"{STOP_TIMEOUT_S:g}") as stage:
        stage.stream.start()
        await stage.stream.ready()
        await stage.stream.until_stats("busy", lambda found: found["frames_acknowledged"] > 4_000)
        broker.freeze()
        try:
            await stage.stream.until_stats("waiting", lambda found: found["journal"]["lag_frames"] > 2_000)
            with stage.outage():
                took_s = await stage.stream.stopped()
                stage.stream.start()
                # While it starts, the ended producer's last bytes are still in the broker's sockets.
                await stage.stream.until_stats("going on", lambda found: found["frames_received"] > 2_000)
        finally:
            broker.thaw()
        await stage.stream.ready()
        await stage.all_received()
        proved = await stage.proved()
    assert took_s < STOP_TIMEOUT_S + BEYOND_S, f"the stop took {took_s:.1f} s"
    assert proved.lost_unread == 0
    assert dict(proved.gaps) == dict.fromkeys(stage.feeds, 1)


@pytest.mark.proof
@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "absent"])
async def test_stop_does_not_wait_for_a_broker_that_never_answered(
    own_kafka: Callable[..., EmbeddedKafka], topic_prefix: str, tmp_path: Path, frozen: bool
) -> None:
    """A stop does not wait for a broker that never answered; the next start delivers the journalled frames."""
    broker = await asyncio.to_thread(own_kafka)
    await asyncio.to_thread(broker.freeze if frozen else broker.kill)
    async with staged(broker, topic_prefix, tmp_path, rate=500, STOP_TIMEOUT=f"{STOP_TIMEOUT_S:g}") as stage:
        stage.stream.start()
        await stage.stream.until_stats("journalling", lambda found: found["journal"]["durable_position"] > 500)
        with stage.outage():
            took_s = await stage.stream.stopped()
            await asyncio.to_thread(broker.thaw if frozen else broker.restart)
            stage.stream.start()
            await stage.stream.ready()
        await stage.stream.until_stats("busy", lambda found: found["frames_acknowledged"] > 1_000)
        await stage.all_received()
        proved = await stage.proved()
    assert took_s < STOP_TIMEOUT_S + BEYOND_S, f"the stop took {took_s:.1f} s"
    assert proved.lost_unread == 0
    assert dict(proved.gaps) == dict.fromkeys(stage.feeds, 1)
