"""Unusual frames of a real market: sweeps, repeated frames, snapshots amid deltas, skipped updates, unknown fields."""

from pathlib import Path

import pytest

from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.processes.stage import staged

BOOK = "orderbook.50.BTCUSDT"


async def test_unusual_frames_are_published_once_and_in_order(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """Doubled frames, orders with thousands of fills, restarted books and new fields cause no gap and no double."""
    async with staged(kafka, topic_prefix, tmp_path) as stage:
        stage.stream.start()
        await stage.stream.ready()
        fault = stage.exchange.fault
        await fault("duplicate_frames")
        for category in stage.channels:
            await stage.stream.acknowledged_further(500)
            assert await fault("sweep", category=category, channel="publicTrade.BTCUSDT", fills=3_000) == 3
            await fault("resend_snapshot", category=category, channel=BOOK)
            await fault("add_unknown_fields", category=category, channel=BOOK, count=20)
            await stage.stream.acknowledged_further(500)
            await fault("restart_book", category=category, channel=BOOK)
        await fault("duplicate_frames", is_on=False)
        await stage.stream.acknowledged_further(500)
        await stage.all_received()
        proved = await stage.proved()
        assert (await stage.stream.stats())["reconnects"] == 0
    assert proved.lost_unread == proved.never_written == 0
    assert not proved.gaps


@pytest.mark.proof
async def test_update_skipped_by_one_line_is_taken_from_the_other(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """An update that one of two lines skips is not a gap."""
    async with staged(kafka, topic_prefix, tmp_path, BYBIT_LINES="2") as stage:
        stage.stream.start()
        await stage.stream.ready()
        await stage.stream.acknowledged_further(3_000)
        for nth in (1, 2, 1):  # 0 is the reference client
            await stage.exchange.fault("skip_update", category="linear", channel=BOOK, count=3, nth=nth)
            await stage.stream.acknowledged_further(1_000)
        await stage.all_received()
        proved = await stage.proved()
    assert not proved.gaps


@pytest.mark.proof
async def test_update_skipped_by_all_lines_is_a_gap_until_the_next_snapshot(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """The book is discontinuous until the requested snapshot, and the gap is recorded for that book alone."""
    async with staged(kafka, topic_prefix, tmp_path) as stage:
        stage.stream.start()
        await stage.stream.ready()
        await stage.stream.acknowledged_further(1_000)
        with stage.outage():
            await stage.exchange.fault("skip_update", category="linear", channel=BOOK, count=2, nth=1)
            await stage.stream.until_stats("recorded", lambda found: found["gaps"] == 1)
        await stage.stream.acknowledged_further(1_000)
        await stage.exchange.fault("pause")
        await stage.stream.caught_up()
        proved = await stage.proved()
    assert dict(proved.gaps) == {f"linear:{BOOK}": 1}
    assert proved.never_written >= 2
