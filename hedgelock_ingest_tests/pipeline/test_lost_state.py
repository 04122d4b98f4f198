"""A lost saved state: it is rebuilt from the frames in the journal, and unknown data is recorded as a gap."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from hedgelock_ingest.journal import Journal
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.builders import (
    AT_MS,
    a_delta,
    a_frame,
    a_liquidation,
    a_note,
    a_snapshot,
    a_ticker,
    a_trade,
)
from hedgelock_ingest_tests.pipeline.streaming import settings_for, stream_once, values

FEEDS = ["linear:orderbook.50.BTCUSDT", "linear:tickers.BTCUSDT", "linear:publicTrade.BTCUSDT"]
LIQUIDATIONS = "linear:allLiquidation.BTCUSDT"
FIRST = [
    a_note("started", *FEEDS, LIQUIDATIONS),
    a_note("up", *FEEDS, LIQUIDATIONS),
    *map(a_frame, [a_snapshot(update_id=6), a_ticker(), a_trade(), a_liquidation()]),
]
SECOND = [*map(a_frame, [a_delta(update_id=7), a_ticker(kind="delta", cs=101), a_trade("t1", "t2")])]


def change(statement: str) -> Callable[[Path], None]:
    """Return a function that changes the journal's database file."""

    def damage(folder: Path) -> None:
        with closing(sqlite3.connect(folder / "journal.db")) as connection, connection:
            connection.execute(statement)

    return damage


async def test_lost_state_is_rebuilt_from_the_frames_in_the_journal(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """Later frames are translated as without the loss: books continue, tickers are merged, trades are recognised."""
    settings = settings_for(kafka.bootstrap_servers, topic_prefix)
    await stream_once(settings, tmp_path, FIRST)
    change("UPDATE state SET body = x'00'")(tmp_path)
    await stream_once(settings, tmp_path, SECOND)

    books = await values(settings, Topic.MARKET_ORDER_BOOKS)
    assert [(book["update_id"], book["continuous"]) for book in books] == [(6, True), (7, True)]
    assert [trade["trade_id"] for trade in await values(settings, Topic.MARKET_TRADES)] == ["t1", "t2"]
    assert [ticker["sequence"] for ticker in await values(settings, Topic.MARKET_DATA)] == [100, 101]
    for topic in (Topic.INGEST_GAPS, Topic.INGEST_DEAD_LETTERS):
        assert await values(settings, topic) == []


@pytest.mark.parametrize("openings_before", [0, 1])
async def test_lost_state_whose_position_is_lost_too_doubles_nothing(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path, openings_before: int
) -> None:
    """All frames are treated as new, and Kafka shows which are not, also after failed starts."""
    settings = settings_for(kafka.bootstrap_servers, topic_prefix)
    await stream_once(settings, tmp_path, FIRST)
    change("UPDATE state SET body = x'00'")(tmp_path)
    (tmp_path / "journal.mark").unlink()
    for _ in range(openings_before):
        await Journal.open(tmp_path, max_bytes=1_000_000).close(clean=True)
    await stream_once(settings, tmp_path, SECOND)

    assert [book["update_id"] for book in await values(settings, Topic.MARKET_ORDER_BOOKS)] == [6, 7]
    assert [trade["trade_id"] for trade in await values(settings, Topic.MARKET_TRADES)] == ["t1", "t2"]
    assert len(await values(settings, Topic.MARKET_LIQUIDATIONS)) == 1
    gaps = await values(settings, Topic.INGEST_GAPS)
    assert [(gap["feed"], gap["from_sequence"]) for gap in gaps] == [(FEEDS[2], 1_783_284_617)], gaps


async def test_channel_of_which_no_frame_is_left_has_a_gap(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """Its earlier data is unknown, so it is not treated as a new channel."""
    settings = settings_for(kafka.bootstrap_servers, topic_prefix)
    await stream_once(settings, tmp_path, FIRST)
    change("DELETE FROM groups")(tmp_path)
    change("UPDATE state SET body = x'00'")(tmp_path)
    await stream_once(settings, tmp_path, SECOND)
    started = a_note("started", *FEEDS, LIQUIDATIONS, at_ms=AT_MS + 9_000)
    await stream_once(settings, tmp_path, [started, a_note("up", *FEEDS, LIQUIDATIONS, at_ms=AT_MS + 10_000)])

    liquidations = [gap for gap in await values(settings, Topic.INGEST_GAPS) if gap["feed"] == LIQUIDATIONS]
    assert [(gap["from"], gap["to"]) for gap in liquidations] == [
        ("2024-05-15T04:52:42.005Z", "2024-05-15T04:52:52.000Z")
    ]
    (letter,) = await values(settings, Topic.INGEST_DEAD_LETTERS)
    assert "without the snapshot" in letter["reason"]


async def test_acknowledged_frames_that_are_lost_with_the_state_are_a_gap(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """The rebuilt state is older than the next frames, which could hide that some are missing."""
    settings = settings_for(kafka.bootstrap_servers, topic_prefix)
    await stream_once(settings, tmp_path, FIRST)
    await stream_once(settings, tmp_path, SECOND)
    change("DELETE FROM groups WHERE first > 6")(tmp_path)
    change("UPDATE state SET body = x'00'")(tmp_path)
    await stream_once(settings, tmp_path, [a_frame(a_ticker(cs=103, ts=AT_MS + 5_000))])

    (gap,) = await values(settings, Topic.INGEST_GAPS)
    assert (gap["feed"], gap["from_sequence"], gap["to_sequence"]) == (FEEDS[1], 100, 103)
