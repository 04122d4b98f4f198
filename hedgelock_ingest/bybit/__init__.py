"""I/O with Bybit: WebSocket lines and REST. It moves bytes; decisions belong to `protocol`."""
