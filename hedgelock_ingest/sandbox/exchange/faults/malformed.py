"""Malformed frames, for tests of a client's error handling."""

import json

from hedgelock_ingest.errors import SandboxError
from hedgelock_ingest.sandbox.exchange.sockets.connection import BINARY, TEXT


def malformed_frame(kind: str, channel: str, good: str, *, megabytes: float) -> tuple[bytes, int]:
    """
    Return the payload and the first WebSocket byte of a malformed frame.

    Args:
        kind: The defect.
        channel: The channel that the frame imitates.
        good: A valid frame of that channel, as the model; may be empty.
        megabytes: The size of an oversized frame.

    Raises:
        SandboxError: No such kind.
    """
    model = good or json.dumps({"topic": channel, "type": "snapshot", "ts": 1, "data": []})
    match kind:
        case "invalid_json":
            return f'{{"topic":"{channel}","type":snapshot,}}'.encode(), TEXT
        case "truncated":
            return model[: len(model) * 2 // 3].encode(), TEXT
        case "wrong_types":
            return _wrong_types(channel).encode(), TEXT
        case "unknown_topic":
            return model.replace(f'"{channel}"', '"weather.BTCUSDT"', 1).encode(), TEXT
        case "binary":
            return b"\x00\x01" + model.encode(), BINARY
        case "invalid_utf8":
            return b'{"topic":"\xff\xfe"}', TEXT
        case "oversized":
            padding = "x" * int(megabytes * 1024 * 1024)
            return f'{{"topic":"{channel}","type":"snapshot","ts":1,"data":"{padding}"}}'.encode(), TEXT
        case "empty":
            return b"", TEXT
        case "not_an_object":
            return b"[1,2,3]", TEXT
    raise SandboxError(f"no malformed frame of kind {kind!r}")


def _wrong_types(channel: str) -> str:
    bodies: dict[str, object] = {
        "orderbook": {"s": 7, "b": "none", "a": None, "u": "12", "seq": []},
        "publicTrade": [{"T": "now", "s": None, "S": 1, "v": 0.5, "p": 100, "i": 5, "BT": "no"}],
        "tickers": {"symbol": ["BTCUSDT"], "lastPrice": 100.5},
    }
    body = bodies.get(channel.partition(".")[0], 3)
    return json.dumps({"topic": channel, "type": "delta", "ts": "soon", "data": body}, separators=(",", ":"))
