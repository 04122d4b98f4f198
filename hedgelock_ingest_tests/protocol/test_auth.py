"""Signatures of a private WebSocket."""

from hedgelock_ingest.protocol.auth import websocket_signature


def test_signature_equals_a_known_one() -> None:
    """The value was computed independently; with one wrong byte Bybit refuses the key."""
    signature = websocket_signature("test-secret", 1662350400000)

    assert signature == "f072aab6fa18cd774da998325df6cfc87c3ccf10d5722e6b43b570c5feaf6172"
