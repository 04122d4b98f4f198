"""Audit commands and pages on a real stream: gaps, completeness, dead letters, replay, schemas."""

import asyncio
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from hedgelock_ingest.audit import dead_letters, gaps
from hedgelock_ingest.models.topics import CONTRACTS, Topic
from hedgelock_ingest.models.values import iso_utc
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest.settings import Settings
from hedgelock_ingest_tests.kafka.read_topic import read_topic
from hedgelock_ingest_tests.processes.stage import Stage, staged


def _settings(stage: Stage) -> Settings:
    names = {topic.setting: stage.topic(topic) for topic in Topic}
    return Settings(
        kafka_bootstrap_servers=stage.kafka.bootstrap_servers,
        journal_directory=stage.stream.journal,
        **names,  # type: ignore[arg-type]  # all of them are texts
    )


async def _run(stage: Stage, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hedgelock_ingest", *arguments]
    environment = stage.stream.environment()
    return await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


async def _text(stage: Stage, page: str) -> str:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{stage.stream.port}/{page}") as answer,
    ):
        assert answer.status == 200, page
        return await answer.text()


async def _expect_head_as_get(stage: Stage, *pages: str) -> None:
    """Request each page by HEAD on one connection, where a body would be read as the next answer."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
        for page in pages:
            url = f"http://127.0.0.1:{stage.stream.port}/{page}"
            async with session.head(url) as head, session.get(url) as get:
                assert (head.status, head.headers["Content-Type"]) == (get.status, get.headers["Content-Type"]), page
                assert int(head.headers["Content-Length"]) > 0
                assert await head.read() == b""
        async with session.head(f"http://127.0.0.1:{stage.stream.port}/nowhere") as missing:
            assert missing.status == 404


async def test_pages_report_the_state_and_nothing_private(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """Health, readiness, statistics, metrics and their documentation answer, and agree with each other."""
    async with staged(kafka, topic_prefix, tmp_path, rate=500) as stage:
        stage.stream.start()
        await stage.stream.ready()
        await stage.stream.until_stats("some frames", lambda found: found["frames_acknowledged"] > 500)
        await stage.all_received()
        stats = await stage.stream.stats()
        assert (await stage.stream.page("health"))[1] == {"status": "ok", "reasons": []}
        await _expect_head_as_get(stage, "health", "ready", "stats", "metrics")
        metrics = await _text(stage, "metrics")
        openapi = json.loads(await _text(stage, "openapi.json"))
    assert stats["frames_received"] > 500
    assert stats["journal"]["lag_frames"] == 0
    assert stats["receive_to_acknowledged"]["percentiles_ms"]["p50"] > 0
    assert f"hedgelock_frames_acknowledged_total {stats['frames_acknowledged']:.1f}" in metrics
    assert 'hedgelock_line_up{line="linear-a"} 1.0' in metrics
    assert 'hedgelock_receive_to_acknowledged_seconds{quantile="0.99"}' in metrics
    assert set(openapi["paths"]) == {"/health", "/ready", "/stats", "/metrics"}


async def test_gap_is_listed_and_the_rest_is_verified_complete(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """A stop leaves one gap a feed; between the first and the last frame nothing else is missing."""
    began = datetime.now(UTC) - timedelta(seconds=1)
    async with staged(kafka, topic_prefix, tmp_path, rate=500) as stage:
        for _ in range(2):
            stage.stream.start()
            await stage.stream.ready()
            await stage.stream.until_stats("some frames", lambda found: found["frames_acknowledged"] > 300)
            await stage.stream.stopped()
        settings = _settings(stage)
        found = await gaps.list_gaps(settings)
        assert {gap.reason for gap in found} == {"no live line: stopped"}
        assert len({gap.feed for gap in found}) == len(found)
        assert gaps.select(found, feed="spot:") == [gap for gap in found if gap.feed.startswith("spot:")]
        proof = await gaps.verify(settings, since=began, until=datetime.now(UTC))
        assert proof.is_complete, [feed for feed in proof.feeds if not feed.is_complete]
        assert sum(feed.records for feed in proof.feeds) > 600
        listed = await _run(stage, "gaps", "--json")
        assert [json.loads(line)["feed"] for line in listed.stdout.splitlines()] == [gap.feed for gap in found]
        verified = await _run(stage, "gaps", "verify", "--from", began.isoformat())
        assert verified.returncode == 0, verified.stdout + verified.stderr
        assert verified.stdout.startswith(f"Complete: nothing is missing but {len(found)} recorded gaps.\n")
        assert "None" not in verified.stdout
        assert "+00:00" not in verified.stdout
        plain = await _run(stage, "gaps")
        assert plain.stdout.startswith(iso_utc(found[0].from_) + "  ")
        none = await _run(stage, "gaps", "--feed", "nope", "--since", "2030-01-01")
        assert none.stdout == (
            'No gap of a feed whose name begins with "nope", ended at or after 2030-01-01T00:00:00.000Z; '
            f"{len(found)} others are recorded.\n"
        )


async def test_missing_update_outside_recorded_gaps_is_found(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """Records removed from a topic are reported: the check must be able to fail."""
    began = datetime.now(UTC) - timedelta(seconds=1)
    async with staged(kafka, topic_prefix, tmp_path, rate=500) as stage:
        stage.stream.start()
        await stage.stream.ready()
        await stage.stream.until_stats("some frames", lambda found: found["frames_acknowledged"] > 300)
        await stage.stream.stopped()
        settings = _settings(stage)
        records = await read_topic(kafka.bootstrap_servers, stage.topic(Topic.MARKET_ORDER_BOOKS))
        spoiled = settings.model_copy(update={"kafka_topic_market_order_books": f"{topic_prefix}spoiled"})
        await _copy_without(spoiled, records, left_out=len(records) // 2)
        proof = await gaps.verify(spoiled, since=began, until=datetime.now(UTC))
    [damaged] = [feed for feed in proof.feeds if feed.unexplained]
    assert damaged.topic is Topic.MARKET_ORDER_BOOKS
    assert not proof.is_complete


async def _copy_without(settings: Settings, records: list[Any], *, left_out: int) -> None:
    from aiokafka import AIOKafkaProducer

    from hedgelock_ingest.kafka.topic_admin import ensure_topics

    await ensure_topics(settings)
    deltas = [record for record in records if b'"type":"delta"' in record.value]
    victim = deltas[left_out * len(deltas) // len(records)]
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers) as producer:
        for record in records:
            if record is not victim:
                await producer.send(
                    settings.kafka_topic_market_order_books,
                    record.value,
                    record.key,
                    partition=record.partition,
                    timestamp_ms=record.timestamp,
                    headers=list(record.headers),
                )


async def test_dead_letter_is_listed_shown_and_tried_again_once(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """A frame that could not be decoded is kept complete; once it can be, it is published once, marked."""
    async with staged(kafka, topic_prefix, tmp_path, rate=200) as stage:
        stage.stream.start()
        await stage.stream.ready()
        await stage.exchange.fault("inject", kind="invalid_json", category="linear", channel="publicTrade.BTCUSDT")
        await stage.stream.until_stats("the letter", lambda found: found["dead_letters"] == 1)
        await stage.stream.stopped()
        settings = _settings(stage)
        [letter] = await dead_letters.list_dead_letters(settings)
        none = await _run(stage, "dead-letters", "list", "--feed", "nope")
        assert none.stdout == 'No dead letter of a feed whose name begins with "nope"; 1 other is recorded.\n'
        assert letter.is_in_topic
        assert letter.line == "linear-a"
        shown = await _run(stage, "dead-letters", "show", letter.id)
        assert shown.stdout.encode() == letter.raw
        again = await dead_letters.replay_letters(settings, [letter])
        assert (again.records, len(again.still_failing)) == (0, 1)

        # As with a later version that can decode it: the same letter with a valid frame.
        row = {"T": 1_700_000_000_000, "s": "BTCUSDT", "S": "Buy", "v": "1", "p": "2.50", "i": "late", "seq": 1}
        trade = {"topic": "publicTrade.BTCUSDT", "type": "snapshot", "ts": 1_700_000_000_001, "data": [row]}
        readable = dead_letters.StoredDeadLetter(
            **{name: getattr(letter, name) for name in letter.__slots__} | {"raw": json.dumps(trade).encode()}
        )
        for _ in range(2):
            assert (await dead_letters.replay_letters(settings, [readable])).records == 1
        trades = await read_topic(kafka.bootstrap_servers, stage.topic(Topic.MARKET_TRADES))
        late = [json.loads(record.value or b"") for record in trades if b'"late"' in (record.value or b"")]
        assert [value["source"] for value in late] == ["dead-letter"]


@pytest.mark.parametrize("rounds", [2])
async def test_replay_gives_the_records_that_the_stream_published(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path, rounds: int
) -> None:
    """The same journal gives the same records byte for byte, on stdout and in topics, and none is doubled."""
    async with staged(kafka, topic_prefix, tmp_path, rate=500) as stage:
        stage.stream.start()
        await stage.stream.ready()
        await stage.stream.until_stats("some frames", lambda found: found["frames_acknowledged"] > 300)
        await stage.stream.stopped()
        journal = str(stage.stream.journal / "main")
        for _ in range(rounds):
            done = await _run(stage, "replay", journal, "--to", "again-")
            assert done.returncode == 0, done.stderr
        printed = [json.loads(line) for line in (await _run(stage, "replay", journal)).stdout.splitlines()]
        for topic in (Topic.MARKET_TRADES, Topic.MARKET_ORDER_BOOKS, Topic.MARKET_DATA):
            first = await read_topic(kafka.bootstrap_servers, stage.topic(topic))
            again = await read_topic(kafka.bootstrap_servers, f"again-{stage.topic(topic)}")
            assert [record.value for record in first] == [record.value for record in again]
            values = [line["value"] for line in printed if line["topic"] == topic]
            assert sorted(map(json.dumps, values)) == sorted(json.dumps(json.loads(r.value or b"")) for r in first)


async def test_schemas_hold_for_what_is_published(kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path) -> None:
    """Consumers generate code from these schemas, so the records in Kafka must match them."""
    jsonschema = pytest.importorskip("jsonschema")
    async with staged(kafka, topic_prefix, tmp_path, rate=500) as stage:
        stage.stream.start()
        await stage.stream.ready()
        await stage.stream.until_stats("some frames", lambda found: found["frames_acknowledged"] > 300)
        await stage.stream.stopped()
        written = await _run(stage, "schemas", "--directory", str(tmp_path / "schemas"))
        assert written.returncode == 0, written.stderr
        checked = 0
        for topic in CONTRACTS:
            schema = json.loads((tmp_path / "schemas" / f"{topic}.schema.json").read_text())
            for record in (await read_topic(kafka.bootstrap_servers, stage.topic(topic)))[:100]:
                jsonschema.validate(json.loads(record.value or b""), schema)
                checked += 1
    assert checked > 200
    document = json.loads((tmp_path / "schemas" / "asyncapi.json").read_text())
    assert set(document["channels"]) == {topic.value for topic in CONTRACTS}
