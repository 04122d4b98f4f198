"""The messages of the private stream, as the account sends them."""

from collections.abc import Callable, Mapping
from typing import Any

from hedgelock_ingest.sandbox.exchange.account.history import AccountHistory
from hedgelock_ingest.sandbox.exchange.clock import Clock
from hedgelock_ingest.sandbox.exchange.keys import USER_ID

type Publish = Callable[[str, Mapping[str, Any]], None]


class PrivateFrames:
    """Puts rows into Bybit's envelope, keeps the message, and hands it to `publish` with its topic."""

    def __init__(self, clock: Clock, history: AccountHistory) -> None:
        self.publish: Publish = lambda topic, message: None
        self._clock = clock
        self._history = history
        self._last_number = 0

    def matched(self, topic: str, rows: list[dict[str, Any]], *, seq: int, created_ms: int) -> None:
        """Send orders or executions; both carry the id of the match."""
        identity = f"{USER_ID}_{rows[0]['symbol']}_{seq}"
        self._send(topic, {"topic": topic, "id": identity, "creationTime": created_ms, "data": rows})

    def changed(self, topic: str, row: dict[str, Any]) -> None:
        """Send the current state of a wallet or a position."""
        now_ms = self._clock.now_ms()
        # Two messages of one millisecond have different ids.
        self._last_number = max(self._last_number + 1, now_ms)
        identity = f"{USER_ID}_{topic}_{self._last_number}"
        self._send(topic, {"id": identity, "topic": topic, "creationTime": now_ms, "data": [row]})

    def _send(self, topic: str, message: dict[str, Any]) -> None:
        self._history.frame(message)
        self.publish(topic, message)
