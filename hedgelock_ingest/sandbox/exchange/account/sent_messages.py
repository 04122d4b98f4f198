"""Messages of the private stream as the account sends them, and the history of what was sent, for tests to compare."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hedgelock_ingest.sandbox.exchange.clock import ExchangeClock
from hedgelock_ingest.sandbox.exchange.keys import USER_ID

type Publish = Callable[[str, Mapping[str, Any]], None]


class AccountHistory:
    """
    The newest frames, answers and states of the account, in order, each with its time.

    Frames and answers are kept complete, as they were sent; states are the entries of the books after each change.
    """

    def __init__(self, size: int) -> None:
        self.frames: deque[dict[str, Any]] = deque(maxlen=size)
        self.answers: deque[dict[str, Any]] = deque(maxlen=size)
        self.states: deque[dict[str, Any]] = deque(maxlen=size)

    def frame(self, message: Mapping[str, Any]) -> None:
        """Record a frame of the private stream, whether or not a line was open to receive it."""
        self.frames.append(dict(message))

    def answer(self, at_ms: int, path: str, query: Mapping[str, str], result: Mapping[str, Any]) -> None:
        """Record the answer to a signed request."""
        self.answers.append({"at_ms": at_ms, "path": path, "query": dict(query), "result": result})

    def state(self, at_ms: int, cause: str, entries: Mapping[str, Any]) -> None:
        """Record the entries of the books after a change."""
        self.states.append({"at_ms": at_ms, "cause": cause, **entries})

    def since(self, since_ms: int) -> dict[str, Sequence[dict[str, Any]]]:
        """Return frames, answers and states from a time on."""
        return {
            "frames": [one for one in self.frames if one["creationTime"] >= since_ms],
            "answers": [one for one in self.answers if one["at_ms"] >= since_ms],
            "states": [one for one in self.states if one["at_ms"] >= since_ms],
        }


class PrivateFrames:
    """Puts rows into Bybit's envelope, keeps the message, and hands it to `publish` with its topic."""

    def __init__(self, clock: ExchangeClock, history: AccountHistory) -> None:
        self.publish: Publish = lambda topic, message: None
        self._clock = clock
        self._history = history
        self._last_number = 0

    def matched(self, topic: str, rows: list[dict[str, Any]], *, seq: int, created_ms: int) -> None:
        """Send orders or executions; both carry the id of the match."""
        identity = f"{USER_ID}_{rows[0]['symbol']}_{seq}"
        self._send(topic, {"topic": topic, "id": identity, "creationTime": created_ms, "data": rows})

    def changed(self, topic: str, *rows: dict[str, Any]) -> None:
        """Send the current state of wallets or positions."""
        now_ms = self._clock.now_ms()
        # Two messages of one millisecond have different ids.
        self._last_number = max(self._last_number + 1, now_ms)
        identity = f"{USER_ID}_{topic}_{self._last_number}"
        self._send(topic, {"id": identity, "topic": topic, "creationTime": now_ms, "data": list(rows)})

    def _send(self, topic: str, message: dict[str, Any]) -> None:
        self._history.frame(message)
        self.publish(topic, message)
