"""Failures of lines: with two lines one may fail without a gap, with both down there is one gap a feed."""

import asyncio
from pathlib import Path
from random import Random

import pytest

from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.processes.stage import Stage, eventually, staged


async def _both_lines_joined(stage: Stage) -> None:
    async def joined() -> bool:
        return await stage.open_connections() == 4

    await eventually("both lines of both categories subscribed", joined)
    # A new line joins a channel once both lines have received the same frame: at this rate each steady channel has one
    # within this time; the quiet channel joins 1 s after its confirmation.
    await asyncio.sleep(1.3)


@pytest.mark.parametrize(
    ("client", "drops"),
    [
        ("websockets", 4),
        pytest.param("websockets", 22, marks=pytest.mark.proof),
        pytest.param("pybit", 10, marks=pytest.mark.proof),
    ],
)
async def test_lines_may_fail_one_after_the_other_without_a_gap(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path, moments: Random, client: str, drops: int
) -> None:
    """Repeated resets and closes of one of two lines cause no gap, no doubled record and no disorder."""
    async with staged(kafka, topic_prefix, tmp_path, BYBIT_LINES="2", BYBIT_WEBSOCKET_CLIENT=client) as stage:
        stage.stream.start()
        await stage.stream.ready()
        await _both_lines_joined(stage)
        for number in range(drops):
            await asyncio.sleep(moments.uniform(0.0, 0.2))
            how = ("reset", "close")[number % 2]
            # Both categories at once; the older line twice, then the younger one twice. 0 is the reference client.
            nth = 1 + number // 2 % 2
            with stage.outage():
                for category in stage.channels:
                    assert await stage.exchange.fault("drop_lines", category=category, nth=nth, how=how) == 1
            await _both_lines_joined(stage)
        await stage.all_received()
        proved = await stage.proved()
        reconnects = (await stage.stream.stats())["reconnects"]
    assert reconnects == 2 * drops, f"{reconnects} reconnects after {drops} drops in both categories"
    assert not proved.gaps, f"gaps although a line was always open: {dict(proved.gaps)}"


@pytest.mark.proof
async def test_both_lines_down_are_one_gap_a_feed(kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path) -> None:
    """While neither line is open frames are missed, which is recorded once a feed; then the stream continues."""
    async with staged(kafka, topic_prefix, tmp_path, BYBIT_LINES="2") as stage:
        stage.stream.start()
        await stage.stream.ready()
        await _both_lines_joined(stage)
        with stage.outage():
            await stage.exchange.fault("refuse_connections", how="503")
            for category in stage.channels:
                for nth in (2, 1):  # 0 is the reference client
                    assert await stage.exchange.fault("drop_lines", category=category, nth=nth) == 1
            await stage.stream.until_stats(
                "without lines", lambda found: sorted(found["feeds_without_line"]) == sorted(stage.feeds)
            )
            status, ready = await stage.stream.page("ready")
            assert status == 503, ready
            await stage.exchange.fault("accept_connections")
            await stage.stream.ready()
        await _both_lines_joined(stage)
        await stage.all_received()
        proved = await stage.proved()
    assert dict(proved.gaps) == dict.fromkeys(stage.feeds, 1)
    assert proved.never_written > 0


@pytest.mark.proof
@pytest.mark.parametrize("lines", ["1", "2"])
async def test_line_is_rotated_without_a_gap(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path, lines: str
) -> None:
    """The successor opens before the old connection closes; nothing is lost, doubled or out of order."""
    async with staged(kafka, topic_prefix, tmp_path, BYBIT_CONNECTION_MAX_AGE="2", BYBIT_LINES=lines) as stage:
        stage.stream.start()
        await stage.stream.ready()
        rotated = await stage.stream.until_stats(
            "rotated", lambda found: all(line["rotations"] >= 3 for line in found["lines"])
        )
        await stage.all_received()
        proved = await stage.proved()
    assert rotated["reconnects"] == 0
    assert proved.lost_unread == 0
    assert not proved.gaps
