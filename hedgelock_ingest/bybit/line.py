"""A line: one WebSocket connection to Bybit that is kept alive, with the channels it carries."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from hedgelock_ingest.protocol.lines import LineControl, LineKey, Receiver
from hedgelock_ingest.protocol.wire import Control

__all__ = ["Line", "LineControl", "LineKey", "LineState", "LineStatus", "Receiver"]


class LineState(enum.StrEnum):
    """Where a line stands."""

    WAITING = "waiting"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    PAUSED = "paused"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class LineStatus:
    """
    What health and stats show of a line.

    Times are wall-clock nanoseconds. `attempts` counts those since the last connection that stood; `reconnects`
    counts connections that were lost, rotations not among them.
    """

    name: str
    state: LineState
    since_ns: int
    channels: int
    generation: int
    attempts: int
    reconnects: int
    frames: int
    last_cause: str | None
    last_data_ns: int | None


class Line:
    """One supervised connection."""

    def __init__(self, name: str, channels: Sequence[str], receiver: Receiver) -> None:
        self.name = name
        self.channels = tuple(channels)
        self._receiver = receiver

    @property
    def status(self) -> LineStatus:
        """Where the line stands now."""
        raise NotImplementedError

    def control(self, line: LineKey, control: Control) -> None:
        """Take a frame without a topic: an ack, a rejection, a pong."""
        raise NotImplementedError

    def resubscribe(self, channel: str) -> None:
        """Have a new snapshot sent: unsubscribe, then subscribe again."""
        raise NotImplementedError

    def pause(self) -> None:
        """Close, and stay closed until `resume`; no frame is delivered after this returns."""
        raise NotImplementedError

    def resume(self) -> None:
        """Open again after `pause`."""
        raise NotImplementedError

    def stop(self) -> None:
        """Close; `run` returns when the connection is closed."""
        raise NotImplementedError

    async def run(self) -> None:
        """Keep the line open until `stop` or cancelled."""
        raise NotImplementedError
