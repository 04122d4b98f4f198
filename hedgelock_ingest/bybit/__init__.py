"""I/O with Bybit: WebSocket lines and REST. Moves bytes and decides nothing that `protocol` can decide."""
