"""The WebSocket interface, public and private."""
