"""Line keys, and the interfaces between a line and the rest of the program."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from hedgelock_ingest.protocol.messages import Control


class LineKey(NamedTuple):
    """
    One connection of a line: `linear-a`, generation 3.

    Each new connection of a line has the next generation, from 1; two are open while a line is rotated.
    """

    name: str
    generation: int


class Receiver(Protocol):
    """
    Receives what lines read; every method is called in the event loop and must not block.

    Each `line_opened` is followed by exactly one `line_closed` with the same key, and all frames of that key
    come in between. A connection that could not be opened is not reported.
    """

    def line_opened(self, line: LineKey, channels: Sequence[str]) -> None:
        """Note that a connection is open; no frame has been delivered, no subscription sent."""
        ...

    def frames_received(self, line: LineKey, frames: list[bytes], received_ns: int) -> None:
        """
        Receive the frames of one socket read, in order; the hot path.

        The receiver passes every frame without a topic to `LineControl.control` within this call; all other frames
        count as data. `received_ns` is the wall clock when the frames were read.
        """
        ...

    def channel_confirmed(self, line: LineKey, channel: str) -> None:
        """Note that Bybit has accepted a subscription; its data may have arrived before."""
        ...

    def channel_rejected(self, line: LineKey, channel: str, reason: str) -> None:
        """Note that Bybit has refused a subscription; the line retries it a minute later."""
        ...

    def line_closed(self, line: LineKey, cause: str) -> None:
        """Note that a connection has ended; `cause` is one of a small fixed set of words."""
        ...

    def has_joined(self, line: LineKey) -> bool:
        """Return whether this connection's frames have caught up, so that its predecessor may be closed."""
        ...


class LineControl(Protocol):
    """Requests that the rest of the program may make of a line."""

    def control(self, line: LineKey, control: Control) -> None:
        """Apply a frame without a topic: an acknowledgement, a refusal, a pong."""
        ...

    def resubscribe(self, channel: str) -> None:
        """Request a new snapshot: unsubscribe, then subscribe again."""
        ...

    def pause(self) -> None:
        """Close, and stay closed until `resume`; no frame is delivered after this returns."""
        ...

    def resume(self) -> None:
        """Open again after `pause`."""
        ...
