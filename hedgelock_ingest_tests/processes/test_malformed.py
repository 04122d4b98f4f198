"""Malformed frames: each is kept complete as a dead letter, and valid frames are not affected."""

import asyncio
import base64
import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from hedgelock_ingest.journal import dead_letters_in
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.exchange.faults.malformed import malformed_frame
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.processes.stage import Stage, staged

KINDS = (
    "invalid_json", "truncated", "wrong_types", "unknown_topic", "binary", "invalid_utf8", "empty", "not_an_object",
)  # fmt: skip
CHANNELS = ("orderbook.50.BTCUSDT", "publicTrade.BTCUSDT", "tickers.BTCUSDT", "allLiquidation.BTCUSDT")
ROUNDS = 40
OVERSIZED_MIB = (0.4, 1.2, 1.2, 5.5)
"""The first fits into the topic, the others are kept in the journal's table."""


async def _injected(stage: Stage) -> list[dict[str, Any]]:
    """Send malformed frames to the stream's lines, and return the exchange's record of each."""
    noted: list[dict[str, Any]] = []
    for _ in range(ROUNDS):
        before = await _recorded_injections(stage)
        injections = [
            stage.exchange.fault(
                "inject", kind=kind, category=category, channel=channel, nth=1
            )  # 0 is the reference client
            for kind in KINDS
            for category in stage.channels
            for channel in CHANNELS
        ]
        assert await asyncio.gather(*injections) == [1] * len(injections)
        # The exchange keeps the last 1,000.
        now = await _recorded_injections(stage)
        noted += now[-len(injections) :] if len(before) + len(injections) > len(now) else now[len(before) :]
    return noted


async def _recorded_injections(stage: Stage) -> list[dict[str, Any]]:
    injected: list[dict[str, Any]] = (await stage.exchange.state())["injected"]
    return injected


@pytest.mark.proof
async def test_every_malformed_frame_is_kept_and_every_valid_one_arrives(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """Among thousands of malformed frames each valid one is published; each malformed one is kept byte for byte."""
    async with staged(kafka, topic_prefix, tmp_path) as stage:
        stage.stream.start()
        await stage.stream.ready()
        injected = await _injected(stage)
        for megabytes in OVERSIZED_MIB:
            await stage.exchange.fault("inject", kind="oversized", category="linear", nth=1, megabytes=megabytes)
        await stage.all_received()
        stats = await stage.stream.stats()
        in_topic = len(injected) + 1
        proved = await stage.proved(dead_letters=in_topic)
        letters = [record.value for record in (await stage.evidence()).records[Topic.INGEST_DEAD_LETTERS]]
        kept = _kept_in_the_journal(stage.stream.journal / "main")
        assert stage.stream.is_running
    assert len(injected) == ROUNDS * len(KINDS) * 2 * len(CHANNELS)
    assert not proved.gaps
    assert stats["reconnects"] == 0
    raws = [base64.b64decode(letter["raw"]) for letter in letters]
    small = Counter(raw for raw in raws if len(raw) < 100_000)
    assert small == Counter(_raw_of(one) for one in injected)
    assert all(letter["reason"] and letter["line"] in ("spot-a", "linear-a") for letter in letters)
    assert {letter["line"].partition("-")[0] for letter in letters} == {"spot", "linear"}
    expected = [malformed_frame("oversized", "publicTrade.BTCUSDT", "", megabytes=mib)[0] for mib in OVERSIZED_MIB]
    assert [_digest(raw) for raw in raws if len(raw) >= 100_000] == [_digest(expected[0])]
    assert [(_digest(raw), bool(reason)) for raw, reason in kept] == [(_digest(raw), True) for raw in expected[1:]]
    assert stats["records_refused"] == len(kept)


def _raw_of(injected: dict[str, Any]) -> bytes:
    raw = base64.b64decode(injected["raw"])
    assert len(raw) == injected["bytes"], "the exchange kept only a part of the frame; the test is wrong"
    return raw


def _kept_in_the_journal(journal: Path) -> list[tuple[bytes, str]]:
    """Return (raw, reason) of the dead letters that are too large for the topic."""
    return [(base64.b64decode(json.loads(letter.body)["raw"]), letter.reason) for letter in dead_letters_in(journal)]


def _digest(raw: bytes) -> str:
    return f"{len(raw)} bytes, {hashlib.sha256(raw).hexdigest()[:16]}"
