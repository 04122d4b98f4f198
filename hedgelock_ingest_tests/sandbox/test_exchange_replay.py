"""Replay of recorded frames by the exchange."""

import json
from pathlib import Path

import pytest

from hedgelock_ingest.errors import SandboxError
from hedgelock_ingest.sandbox.exchange.recording import read_recording
from hedgelock_ingest_tests.sandbox.exchange_fixtures import connected, eventually, running_exchange

SAMPLES = Path(__file__).parent.parent / "samples"


async def test_recorded_frames_reach_subscribed_lines_unchanged() -> None:
    """This includes symbols that the exchange does not simulate."""
    recorded = [line for line in (SAMPLES / "linear_public.jsonl").read_text().splitlines() if '"topic"' in line]
    async with (
        running_exchange(replay=SAMPLES / "linear_public.jsonl", replay_rate=200) as exchange,
        connected(exchange.public_ws_url, "linear", "tickers.BTCUSDT", "tickers.XRPUSDT") as client,
    ):
        await eventually(lambda: len(client.messages) > len(recorded))
        assert [text for text in client.received if '"topic"' in str(text)] == recorded
        assert exchange.sent("linear", "tickers.XRPUSDT") == [
            json.loads(line)["cs"] for line in recorded if "XRPUSDT" in line
        ]


async def test_a_running_exchange_can_replay_too() -> None:
    """The frames come between its own, in the order of the recording."""
    lines = (SAMPLES / "spot_public.jsonl").read_text().splitlines()
    trades = [line for line in lines if "publicTrade" in line]
    async with (
        running_exchange(rate=0) as exchange,
        connected(exchange.public_ws_url, "spot", "publicTrade.BTCUSDT") as client,
    ):
        assert await exchange.replay(lines, rate=1_000) == len(lines)
        await eventually(lambda: len(client.data("publicTrade.BTCUSDT")) == len(trades))
        assert [text for text in client.received if "publicTrade" in str(text)] == trades


@pytest.mark.parametrize(
    ("file", "category"),
    [("spot_public.jsonl", "spot"), ("linear_public.jsonl", "linear"), ("private.jsonl", "private")],
)
def test_the_category_of_a_recorded_frame_follows_from_its_shape(file: str, category: str) -> None:
    """A frame does not name it, and a file may mix them."""
    frames = read_recording(SAMPLES / file)
    assert {frame.category for frame in frames} == {category}


def test_a_recording_that_is_not_json_is_an_error() -> None:
    """The error names the line."""
    with pytest.raises(SandboxError, match="line 2"):
        read_recording(['{"topic":"tickers.BTCUSDT","data":{}}', "oops"])
    with pytest.raises(SandboxError, match="cannot be read"):
        read_recording(SAMPLES / "missing.jsonl")
