"""A receiver that records the calls of lines."""

import asyncio
import time
from collections.abc import Callable, Sequence

from hedgelock_ingest.protocol.line_events import LineKey, Resubscribe
from hedgelock_ingest.protocol.messages import DataMessage


class RecordingReceiver:
    """Records every call."""

    def __init__(self) -> None:
        self.events: list[tuple[str, LineKey, str]] = []
        self.frames: list[bytes] = []
        self.messages: list[DataMessage | None] = []
        self.resubscribe: dict[LineKey, Resubscribe] = {}
        self.frames_by_line: dict[LineKey, list[bytes]] = {}
        self.out_of_turn: list[LineKey] = []
        self.joined = True
        self.behind = False
        self.failure: Exception | None = None

    def line_opened(self, line: LineKey, channels: Sequence[str], resubscribe: Resubscribe) -> None:
        self.events.append(("opened", line, " ".join(channels)))
        self.resubscribe[line] = resubscribe

    def frames_received(
        self, line: LineKey, raws: Sequence[bytes], messages: Sequence[DataMessage | None], received_ns: int
    ) -> None:
        if self.failure is not None:
            raise self.failure
        if not self._is_open(line):
            self.out_of_turn.append(line)
        self.events.append(("data", line, str(len(raws))))
        self.frames += raws
        self.messages += messages
        self.frames_by_line.setdefault(line, []).extend(raws)

    def line_alive(self, line: LineKey) -> None:
        self.events.append(("alive", line, ""))

    def channel_confirmed(self, line: LineKey, channel: str) -> None:
        self.events.append(("confirmed", line, channel))

    def channel_rejected(self, line: LineKey, channel: str, reason: str) -> None:
        self.events.append(("rejected", line, f"{channel} {reason}"))

    def line_closed(self, line: LineKey, cause: str) -> None:
        self.events.append(("closed", line, cause))

    def has_joined(self, line: LineKey) -> bool:
        channels = [text.split() for kind, key, text in self.events if kind == "opened" and key == line]
        confirmed = {text for kind, key, text in self.events if kind == "confirmed" and key == line}
        return self.joined and any(confirmed.issuperset(each) for each in channels)

    def is_behind(self, line: LineKey) -> bool:
        return self.behind

    def _is_open(self, line: LineKey) -> bool:
        kinds = [kind for kind, key, _ in self.events if key == line]
        return "opened" in kinds and "closed" not in kinds

    def details(self, kind: str) -> list[str]:
        """Return the details of the events of one kind, oldest first."""
        return [text for name, _, text in self.events if name == kind]


async def eventually(condition: Callable[[], object], *, timeout_s: float = 10.0) -> None:
    """Wait until a condition holds; fail when it does not in time."""
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, "the condition did not come true in time"
        await asyncio.sleep(0.005)
