"""Frames recorded from the real exchange, for replay."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hedgelock_ingest.errors import SandboxError
from hedgelock_ingest.sandbox.exchange.market.channel_stream import ChannelEvent, ChannelStream, Identity


class RecordedStream(ChannelStream):
    """A channel without simulated events; recorded frames are published on it."""

    kind = "recorded"

    def __init__(self, category: str, channel: str) -> None:
        super().__init__(category, channel, float("inf"))

    def advance(self, now_ms: int, *, must: bool) -> ChannelEvent | None:
        return None


@dataclass(frozen=True, slots=True)
class RecordedFrame:
    """One recorded frame, character for character, and its category and channel as far as its shape shows them."""

    category: str
    channel: str
    event: ChannelEvent


def read_recording(source: Path | Iterable[str]) -> list[RecordedFrame]:
    """
    Read recorded frames, one JSON text a line; those without a topic, such as acknowledgements, are left out.

    Raises:
        SandboxError: A line is not JSON, or the file cannot be read.
    """
    frames = []
    for number, line in enumerate(_lines(source), 1):
        if not line.strip():
            continue
        try:
            message = json.loads(line)
        except ValueError as error:
            raise SandboxError(f"recording line {number} is not JSON: {error}") from error
        if isinstance(message, dict) and isinstance(message.get("topic"), str):
            event = ChannelEvent(line.strip(), _identity(message))
            frames.append(RecordedFrame(_category(message), message["topic"], event))
    return frames


def _lines(source: Path | Iterable[str]) -> list[str]:
    if not isinstance(source, Path):
        return list(source)
    try:
        return source.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SandboxError(f"recording {source} cannot be read: {error}") from error


def _category(message: dict[str, Any]) -> str:
    keys = list(message)
    match message["topic"].partition(".")[0], message.get("data"):
        case _ if "creationTime" in message:
            return "private"
        case "tickers", {"symbol": _, **fields}:
            return "spot" if "usdIndexPrice" in fields else "linear"
        case "publicTrade", [{"L": _}, *_]:
            return "linear"
        case "orderbook" | "publicTrade", _:
            # Spot puts "ts" before "type" (Orderbook, note on the order of keys).
            return "spot" if keys.index("ts") < keys.index("type") else "linear"
    return "linear"


def _identity(message: dict[str, Any]) -> Identity:
    kind = message["topic"].partition(".")[0]
    match kind, message.get("data"):
        case "orderbook", {"u": int(update_id)}:
            return update_id
        case "publicTrade", [*trades]:
            return tuple(_trade_number(str(trade["i"])) for trade in trades)
        case "tickers", _:
            return int(message.get("cs", 0))
    return 0


def _trade_number(trade_id: str) -> int:
    return int(trade_id) if trade_id.isdigit() else int(trade_id.replace("-", ""), 16)
