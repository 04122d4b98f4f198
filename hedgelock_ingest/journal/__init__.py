"""The durable local log of received frames, on SQLite."""
