"""Limits of the journal: its bound, a full disk, a second owner, a file truncated in the middle of a write."""

import asyncio
import os
import resource
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.journal.small_disk import MEBIBYTE, may_mount, mounted
from hedgelock_ingest_tests.processes.proof import prove
from hedgelock_ingest_tests.processes.stage import Stage, staged
from hedgelock_ingest_tests.processes.stream_process import StreamProcess

BOUND = 1024 * 1024
_FEWEST_TRANSACTIONS = 5
"""Enough for a cut that loses complete transactions: one that was under way has no guarantee."""


async def _paused(stage: Stage, word: str, *, timeout_s: float = 30) -> None:
    """Wait until the stream reports that the journal refuses frames, and has closed its lines."""
    found = await stage.stream.until_stats(
        "paused",
        lambda stats: stats["pauses"] >= 1 and all(line["state"] == "paused" for line in stats["lines"]),
        timeout_s=timeout_s,
    )
    assert word in (found["journal"]["trouble"] or ""), found["journal"]
    assert await stage.open_connections() == 0
    status, ready = await stage.stream.page("ready")
    assert status == 503
    assert any("journal" in reason for reason in ready["reasons"]), ready
    status, health = await stage.stream.page("health")
    assert (status, health["status"]) == (200, "degraded"), health


@pytest.mark.proof
async def test_full_journal_closes_the_lines_until_kafka_is_back(
    own_kafka: Callable[..., EmbeddedKafka], topic_prefix: str, tmp_path: Path
) -> None:
    """At its bound the stream stops reading instead of dropping frames, and reports it; then it continues."""
    broker = await asyncio.to_thread(own_kafka)
    # Slow enough that the bound is several seconds of frames, more than connecting to Kafka takes.
    async with staged(broker, topic_prefix, tmp_path, rate=400, JOURNAL_MAX_BYTES="1MiB") as stage:
        stage.stream.start()
        await stage.stream.ready()
        await stage.stream.until_stats("busy", lambda found: found["frames_acknowledged"] > 1_000)
        assert (await stage.stream.stats())["pauses"] == 0, "paused without an outage"
        broker.freeze()
        try:
            with stage.outage():
                await _paused(stage, "bound")
                await asyncio.sleep(2.0)  # the market continues while the lines are closed
                assert (await stage.stream.stats())["journal"]["backlog_bytes"] <= BOUND
                broker.thaw()
                await stage.stream.ready()
        finally:
            broker.thaw()
        await stage.stream.until_stats("busy", lambda found: found["frames_acknowledged"] > 3_000)
        await stage.all_received()
        proved = await stage.proved()
        stats = await stage.stream.stats()
    assert stats["pauses"] == 1
    assert stats["journal"]["trouble"] is None
    assert dict(proved.gaps) == dict.fromkeys(stage.feeds, 1)
    assert proved.never_written > 500


@contextmanager
def _limit_of_file_size(stream: StreamProcess) -> Iterator[Callable[[bool], None]]:
    """Limit the size of the process's files, which needs no privileges."""

    def fill(is_full: bool) -> None:
        limit = 64 * 1024 if is_full else resource.RLIM_INFINITY
        resource.prlimit(stream.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    yield fill


async def test_full_disk_closes_the_lines_until_there_is_space(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """A disk that refuses frames is an outage: it is reported, no frame that was read is lost, and reading resumes."""
    async with staged(kafka, topic_prefix, tmp_path, rate=2_000) as stage:
        with _limit_of_file_size(stage.stream) as fill:
            stage.stream.start()
            await stage.stream.ready()
            await stage.stream.until_stats("busy", lambda found: found["frames_acknowledged"] > 4_000)
            with stage.outage():
                fill(True)
                await _paused(stage, "disk")
                await asyncio.sleep(1.0)  # the market continues while the lines are closed
                fill(False)
                await stage.stream.ready()
            await stage.stream.until_stats("busy", lambda found: found["frames_acknowledged"] > 10_000)
            await stage.all_received()
            proved = await stage.proved()
            stats = await stage.stream.stats()
            await stage.stream.stopped()
    assert stats["journal"]["trouble"] is None
    assert dict(proved.gaps) == dict.fromkeys(stage.feeds, 1)
    assert proved.never_written > 0


_needs_mount = pytest.mark.skipif(not may_mount(), reason="no right to mount; the simulation has a small disk, too")


@_needs_mount
@pytest.mark.proof
async def test_disk_that_others_fill_costs_nothing_while_kafka_takes_frames(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """Delivered frames make room for new ones: no line closes."""
    with mounted(tmp_path, 64 * MEBIBYTE) as disk:
        async with staged(kafka, topic_prefix, tmp_path / "stream", rate=2_000) as stage:
            stage.stream.journal = disk.folder
            stage.stream.start()
            await stage.stream.ready()
            await stage.stream.until_stats("delivered", lambda found: found["frames_acknowledged"] > 4_000)
            await stage.stream.until_stats("saved", lambda found: found["journal"]["backlog_bytes"] < 300_000)
            disk.fill()
            await stage.stream.acknowledged_further(4_000)
            await stage.all_received()
            proved = await stage.proved()
            stats = await stage.stream.stats()
            await stage.stream.stopped()
    assert stats["pauses"] == 0
    assert not proved.gaps


@_needs_mount
@pytest.mark.proof
@pytest.mark.parametrize("mebibytes", [4, 16])
@pytest.mark.parametrize("what", ["kafka away", "others fill it", "killed"])
async def test_small_disk_that_fills_without_kafka_only_delays(
    own_kafka: Callable[..., EmbeddedKafka], topic_prefix: str, tmp_path: Path, mebibytes: int, what: str
) -> None:
    """Lines close while there is no room, and reopen when Kafka has taken the frames; others may have all the rest."""
    broker = await asyncio.to_thread(own_kafka)
    with mounted(tmp_path, mebibytes * MEBIBYTE) as disk:
        async with staged(broker, topic_prefix, tmp_path / "stream", rate=2_000) as stage:
            stage.stream.journal = disk.folder
            stage.stream.start()
            await stage.stream.ready()
            await stage.stream.until_stats("busy", lambda found: found["frames_acknowledged"] > 1_000)
            broker.freeze()
            try:
                with stage.outage():
                    await _paused(stage, "disk", timeout_s=120)
                    if what != "kafka away":
                        disk.fill()
                    if what == "killed":
                        await stage.stream.kill()
                        disk.fill()
                        stage.stream.start()
                    broker.thaw()
                    await stage.stream.ready(timeout_s=60)
            finally:
                broker.thaw()
            await stage.stream.acknowledged_further(2_000)
            await stage.all_received()
            evidence = await stage.evidence()
            evidence.gaps_an_outage = 10  # a new process reads until it finds the disk full as well
            proved = prove(evidence)
            print(proved)
            stats = await stage.stream.stats()
            await stage.stream.stopped()
    assert stats["journal"]["trouble"] is None
    assert min(proved.gaps[feed] for feed in stage.feeds if "allLiquidation" not in feed) >= 1


async def test_second_process_on_a_journal_is_refused(kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path) -> None:
    """Two owners of one journal would double records: the second ends with code 1 and names the first."""
    async with staged(kafka, topic_prefix, tmp_path, rate=500) as stage:
        stage.stream.start()
        await stage.stream.ready()
        second = StreamProcess(
            tmp_path / "second", {**stage.stream.settings, "JOURNAL_DIRECTORY": str(stage.stream.journal)}
        )
        second.start()
        try:
            assert await second.ended(timeout_s=20) == 1
        finally:
            await second.kill()
        log = second.log(lines=3)
        assert f"owned by process {stage.stream.pid}" in log, log
        await stage.stream.acknowledged_further(500)
        await stage.all_received()
        await stage.stream.stopped()
        proved = await stage.proved()
    assert not proved.gaps


def _transactions(log: Path) -> list[int]:
    """
    Return the end of each transaction in use in a write-ahead log, in bytes.

    A frame is in use if it has the salts of the log's header; the last one of a transaction names the size of the
    database (SQLite, "WAL-mode File Format").
    """
    raw = log.read_bytes()
    page_bytes, salts = int.from_bytes(raw[8:12]), raw[16:24]
    at, ends = 32, []
    while raw[at + 8 : at + 16] == salts:
        is_last = raw[at + 4 : at + 8] != bytes(4)
        at += 24 + page_bytes
        if is_last:
            ends.append(at)
    return ends


async def _killed_with_transactions(stream: StreamProcess, log: Path) -> list[int]:
    """Kill the stream while its log holds some transactions, and return where they end."""
    while True:
        stream.send(signal.SIGSTOP)
        if len(ends := _transactions(log)) >= _FEWEST_TRANSACTIONS:
            await stream.kill()
            return ends
        stream.send(signal.SIGCONT)
        await asyncio.sleep(0.02)  # the log was checkpointed into the database just now


def _cut_within(ends: Sequence[int], kept: float) -> int:
    """Return the middle of a transaction: that share of them is kept before it, and at least one more is lost."""
    whole = min(int(len(ends) * kept), len(ends) - 2)
    return (ends[whole] + ends[whole - 1]) // 2


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("journal.db-wal", 0.9),
        pytest.param("journal.db-wal", 0.2, marks=pytest.mark.proof),
        pytest.param("journal.db", 0.6, marks=pytest.mark.proof),
    ],
)
async def test_truncated_journal_is_recovered_and_reported(
    own_kafka: Callable[..., EmbeddedKafka], topic_prefix: str, tmp_path: Path, name: str, kept: float
) -> None:
    """Frames that a disk fault removed from the journal are a recorded gap; all others are delivered once."""
    broker = await asyncio.to_thread(own_kafka)
    async with staged(broker, topic_prefix, tmp_path, rate=2_000) as stage:
        stage.stream.start()
        await stage.stream.ready()
        await stage.stream.until_stats("busy", lambda found: found["frames_acknowledged"] > 4_000)
        broker.freeze()
        try:
            with stage.outage():  # frames journalled from here on may be lost with the journal's end
                await stage.stream.until_stats("waiting", lambda found: found["journal"]["lag_frames"] > 4_000)
                cut = stage.stream.journal / "main" / name
                ends = await _killed_with_transactions(stage.stream, cut.with_name("journal.db-wal"))
                os.truncate(cut, _cut_within(ends, kept) if name.endswith("-wal") else int(cut.stat().st_size * kept))
                stage.stream.start()
                broker.thaw()
                await stage.stream.ready()
        finally:
            broker.thaw()
        await stage.stream.until_stats("busy", lambda found: found["frames_acknowledged"] > 4_000)
        status, health = await stage.stream.page("health")
        await stage.all_received()
        evidence = await stage.evidence()
        evidence.unread_ms = 10_000  # the frames lost from the journal had been read long before
        evidence.early_ms = 15_000  # with the end of the log the newest states may be lost, too, one every five seconds
        evidence.gaps_an_outage = 50  # one for each lost stretch, and one from the kill to the new start
        # Changes of a ticker whose snapshot was lost cannot be merged, and are kept as dead letters.
        letters = evidence.records[Topic.INGEST_DEAD_LETTERS]
        assert all("without the snapshot" in letter.value["reason"] for letter in letters)
        evidence.dead_letters = len(letters)
        proved = prove(evidence)
        print(proved)
    assert (status, health["status"]) == (200, "degraded"), health
    # A truncated database may be unusable: then it is reported as damaged, and nothing is lost.
    health_text = " ".join(health["reasons"])
    assert any(words in health_text for words in ("are lost", "malformed", "structure is damaged")), health
    assert min(proved.gaps[feed] for feed in stage.feeds if "allLiquidation" not in feed) >= 1
    reasons = {record.value["reason"] for record in evidence.records[Topic.INGEST_GAPS]}
    assert all("damaged" in reason for reason in reasons), reasons
