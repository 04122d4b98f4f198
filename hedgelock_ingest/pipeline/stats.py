"""Counters of the stream."""

from collections import Counter, deque
from dataclasses import dataclass, field

from hedgelock_ingest.pipeline.latency import LatencyWindow

_RATE_WINDOW_S = 10.0


@dataclass(slots=True)
class Stats:
    """
    Totals since the start, and latencies of the last minute; no private data.

    `position` is the last frame whose records Kafka has acknowledged, `durable_position` the last one journalled.
    """

    started_ns: int
    durable_position: int = 0
    position: int = 0
    frames_acknowledged: int = 0
    records: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    journal_trouble: str | None = None
    pauses: int = 0
    producer_opened: int = 0
    receive_to_acknowledged: LatencyWindow = field(default_factory=LatencyWindow)
    exchange_to_acknowledged: LatencyWindow = field(default_factory=LatencyWindow)
    _rate_marks: deque[tuple[float, int]] = field(default_factory=deque)

    @property
    def lag_frames(self) -> int:
        """Frames that are journalled and not yet acknowledged."""
        return self.durable_position - self.position

    def mark_rate(self, now_s: float) -> None:
        """Record the acknowledged frames, about once a second."""
        self._rate_marks.append((now_s, self.frames_acknowledged))
        while now_s - self._rate_marks[0][0] > _RATE_WINDOW_S:
            self._rate_marks.popleft()

    def rate_per_s(self) -> float:
        """Return the acknowledged frames per second, over the last ten seconds."""
        if len(self._rate_marks) < 2:
            return 0.0
        (first_s, first), (last_s, last) = self._rate_marks[0], self._rate_marks[-1]
        return (last - first) / (last_s - first_s) if last_s > first_s else 0.0
