"""What a line is called, and what it and the rest of the program say to each other."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from hedgelock_ingest.protocol.messages import Control


class LineKey(NamedTuple):
    """
    One connection in the life of a line: `linear-a`, generation 3.

    Each connection of a line has the next generation, starting with 1; two are alive while a line is rotated.
    """

    name: str
    generation: int


class Receiver(Protocol):
    """
    Takes what lines read; every method is called in the event loop and must not block.

    Each `line_opened` is followed by exactly one `line_closed` with the same key, and all frames of that key
    come in between. A connection that could not be opened is not reported.
    """

    def line_opened(self, line: LineKey, channels: Sequence[str]) -> None:
        """Note that a connection stands; no frame has been delivered, no subscription sent."""
        ...

    def frames_received(self, line: LineKey, frames: list[bytes], received_ns: int) -> None:
        """
        Take the frames of one socket read, in order; the hot path.

        Every frame without a topic goes back at once, in this call, to `LineControl.control`: what does not
        come back counts as data. `received_ns` is the wall clock when the frames were read.
        """
        ...

    def channel_confirmed(self, line: LineKey, channel: str) -> None:
        """Note that Bybit has accepted a subscription; its data may have come before."""
        ...

    def channel_rejected(self, line: LineKey, channel: str, reason: str) -> None:
        """Note that Bybit has refused a subscription; the line asks again by itself, a minute later."""
        ...

    def line_closed(self, line: LineKey, cause: str) -> None:
        """Note that a connection has ended; `cause` is one of a small fixed set of words."""
        ...

    def has_joined(self, line: LineKey) -> bool:
        """Say whether this connection's frames have caught up, so that its predecessor may be closed."""
        ...


class LineControl(Protocol):
    """What the rest of the program may ask of a line."""

    def control(self, line: LineKey, control: Control) -> None:
        """Take a frame without a topic: an acknowledgement, a refusal, a pong."""
        ...

    def resubscribe(self, channel: str) -> None:
        """Have a new snapshot sent: unsubscribe, then subscribe again."""
        ...

    def pause(self) -> None:
        """Close, and stay closed until `resume`; no frame is delivered after this returns."""
        ...

    def resume(self) -> None:
        """Open again after `pause`."""
        ...
