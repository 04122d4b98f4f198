"""Kills of the process: the next one loses nothing that was journalled, and doubles nothing."""

import asyncio
import signal
from pathlib import Path
from random import Random

import pytest

from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.processes.proof import prove
from hedgelock_ingest_tests.processes.stage import staged

FROZEN_S = 3.0
"""Far more than a pause of the machine, less than the simulated exchange takes to reset a slow reader."""


@pytest.mark.parametrize(
    ("client", "kills"),
    [
        ("websockets", 2),
        pytest.param("websockets", 10, marks=pytest.mark.proof),
        pytest.param("pybit", 5, marks=pytest.mark.proof),
    ],
)
async def test_kills_in_a_row_lose_and_double_nothing(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path, moments: Random, client: str, kills: int
) -> None:
    """After each kill -9 under load, events that reached us are in Kafka once, and the kill is one gap a feed."""
    async with staged(kafka, topic_prefix, tmp_path, rate=2_000, BYBIT_WEBSOCKET_CLIENT=client) as stage:
        stage.stream.start()
        await stage.stream.ready()
        for _ in range(kills):
            await stage.stream.until_stats("busy", lambda found: found["frames_acknowledged"] > 1_000)
            await asyncio.sleep(moments.uniform(0.0, 3.0))
            with stage.outage():
                await stage.stream.kill()
                stage.stream.start()
                await stage.stream.ready()
        await asyncio.sleep(1.0)
        await stage.all_received()
        await stage.stream.stopped()
        proved = await stage.proved()
    assert proved.in_kafka > 1_000 * kills, f"too little to prove anything: {proved}"
    fewest = min(proved.gaps[feed] for feed in stage.feeds if "allLiquidation" not in feed)
    assert fewest == kills, f"{dict(proved.gaps)}, expected {kills} gaps a feed"


async def test_resumed_process_reads_the_frames_in_its_sockets(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """A process that was suspended for seconds, as on a machine that swaps, reads the frames sent meanwhile."""
    async with staged(kafka, topic_prefix, tmp_path, rate=200) as stage:
        stage.stream.start()
        await stage.stream.ready()
        await stage.stream.until_stats("busy", lambda found: found["frames_acknowledged"] > 300)
        stage.stream.send(signal.SIGSTOP)
        try:
            await asyncio.sleep(FROZEN_S)
        finally:
            stage.stream.send(signal.SIGCONT)
        await stage.stream.acknowledged_further(900)
        await stage.all_received()
        proved = await stage.proved()
        assert (await stage.stream.stats())["reconnects"] == 0
    assert proved.lost_unread == proved.never_written == 0
    assert not proved.gaps


@pytest.mark.proof
async def test_kills_during_the_start_lose_and_double_nothing(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path, moments: Random
) -> None:
    """A process killed before it is ready, as in a crash loop, leaves all journalled frames to the next one."""
    async with staged(kafka, topic_prefix, tmp_path) as stage:
        stage.stream.start()
        await stage.stream.ready()
        await asyncio.sleep(1.0)
        with stage.outage():
            for _ in range(8):
                await stage.stream.kill()
                stage.stream.start()
                await asyncio.sleep(moments.uniform(0.5, 3.0))
            await stage.stream.ready()
        await asyncio.sleep(1.0)
        await stage.all_received()
        await stage.stream.stopped()
        evidence = await stage.evidence()
        evidence.gaps_an_outage = 9  # a process may run long enough for its lines to open
        evidence.unread_ms = 3_000  # with the machine busy, 1.5 s were seen in a process that had just started
        proved = prove(evidence)
        print(proved)
    assert proved.never_written > 1_000


@pytest.mark.proof
async def test_two_shards_on_the_same_topics_recognise_their_own_records(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path, moments: Random
) -> None:
    """Each finds its own records among the other's, while the other continues to publish."""
    async with staged(kafka, topic_prefix, tmp_path, BYBIT_SPOT_SYMBOLS="") as stage:
        spot = stage.another_stream("spot", BYBIT_SPOT_SYMBOLS="BTCUSDT", BYBIT_LINEAR_SYMBOLS="")
        shards = [stage.stream, spot]
        try:
            for shard in shards:
                shard.start()
                await shard.ready()
            for number in range(4):
                await asyncio.sleep(moments.uniform(0.5, 1.5))
                with stage.outage():
                    await shards[number % 2].kill()
                    shards[number % 2].start()
                    await shards[number % 2].ready()
            await asyncio.sleep(1.0)
            await stage.all_received(spot)
            for shard in shards:
                await shard.stopped()
            proved = await stage.proved(journals=2)
        finally:
            await spot.kill()
    assert {proved.gaps[feed] for feed in stage.feeds if "allLiquidation" not in feed} == {2}
