"""Stale lines: they are replaced, and the frames missed meanwhile are a recorded gap."""

from pathlib import Path

import pytest

from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.processes.stage import staged


@pytest.mark.proof
@pytest.mark.parametrize(
    ("fault", "cause", "stale_after", "loses"),
    [
        ("go_silent", "stale", "1.5", True),
        ("stop_answering_pings", "no_pong", "60", False),
    ],
)
async def test_stale_line_is_replaced(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path, fault: str, cause: str, stale_after: str, loses: bool
) -> None:
    """Without data, or without answers to pings, a line is closed and reopened; the time between is a gap."""
    async with staged(
        kafka, topic_prefix, tmp_path, rate=500, BYBIT_PING_INTERVAL="1", BYBIT_STALE_AFTER=stale_after
    ) as stage:
        stage.stream.start()
        await stage.stream.ready()
        await stage.stream.until_stats("busy", lambda found: found["frames_acknowledged"] > 500)
        with stage.outage():
            for category in stage.channels:
                await stage.exchange.fault(fault, category=category, nth=1)  # 0 is the reference client
            replaced = await stage.stream.until_stats(
                "replaced", lambda found: all(line["reconnects"] == 1 for line in found["lines"])
            )
            await stage.stream.ready()
        await stage.stream.acknowledged_further(500)
        await stage.all_received()
        proved = await stage.proved()
    assert [line["last_cause"] for line in replaced["lines"]] == [cause] * 2
    assert dict(proved.gaps) == dict.fromkeys(stage.feeds, 1)
    assert (proved.never_written > 50) == loses, str(proved)


@pytest.mark.proof
async def test_with_two_lines_a_silent_one_is_replaced_without_a_gap(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """The other line receives all frames meanwhile."""
    async with staged(kafka, topic_prefix, tmp_path, rate=500, BYBIT_LINES="2", BYBIT_STALE_AFTER="1.5") as stage:
        stage.stream.start()
        await stage.stream.ready()
        await stage.stream.until_stats("busy", lambda found: found["frames_acknowledged"] > 1_000)
        with stage.outage():
            for category in stage.channels:
                await stage.exchange.fault("go_silent", category=category, nth=1)
            await stage.stream.until_stats("replaced", lambda found: found["reconnects"] >= 2)
        await stage.stream.acknowledged_further(1_000)
        await stage.stream.stopped()
        proved = await stage.proved()
    assert not proved.gaps
