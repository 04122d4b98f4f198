"""The frames and answers that the account's readers were sent, and the books at the time, for tests to compare."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any


class AccountHistory:
    """
    The newest frames, answers and states of the account, in order, each with its time.

    Frames and answers are kept complete, as they were sent; states are the books after each change.
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

    def state(self, at_ms: int, cause: str, books: Mapping[str, Any]) -> None:
        """Record the books after a change."""
        self.states.append({"at_ms": at_ms, "cause": cause, **books})

    def since(self, since_ms: int) -> dict[str, Sequence[dict[str, Any]]]:
        """Return frames, answers and states from a time on."""
        return {
            "frames": [one for one in self.frames if one["creationTime"] >= since_ms],
            "answers": [one for one in self.answers if one["at_ms"] >= since_ms],
            "states": [one for one in self.states if one["at_ms"] >= since_ms],
        }
