"""Line keys, and the interface through which a line passes on what it reads."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from hedgelock_ingest.protocol.messages import DataMessage


class LineKey(NamedTuple):
    """
    One connection of a line: `linear-a`, generation 3.

    Each new connection of a line has the next generation, from 1; two are open while a line is rotated.
    """

    name: str
    generation: int


type Resubscribe = Callable[[str], None]
"""Requests a channel's snapshot on one connection: unsubscribes, then subscribes again."""


class FrameReceiver(Protocol):
    """
    Receives what lines read; every method is called in the event loop and must not block.

    Each `line_opened` is followed by exactly one `line_closed` with the same key, and all frames of that key
    come in between. A connection that could not be opened is not reported.
    """

    def line_opened(self, line: LineKey, channels: Sequence[str], resubscribe: Resubscribe) -> None:
        """
        Note that a connection is open; no frame has been delivered, no subscription sent.

        `resubscribe` may be called until `line_closed`.
        """
        ...

    def frames_received(
        self, line: LineKey, raws: Sequence[bytes], messages: Sequence[DataMessage | None], received_ns: int
    ) -> None:
        """
        Receive frames of one socket read, in order, each with its message; the hot path.

        A message is None if its frame could not be decoded. `received_ns` is the wall clock when the frames were read.
        Control frames are not among them: the read is passed in parts, before and after each control frame.
        """
        ...

    def line_alive(self, line: LineKey) -> None:
        """Note that a read consisted of control frames."""
        ...

    def channel_confirmed(self, line: LineKey, channel: str) -> None:
        """Note that Bybit has accepted a subscription; its data may have arrived before."""
        ...

    def channel_rejected(self, line: LineKey, channel: str, reason: str) -> None:
        """Note that Bybit has refused a subscription, and sends the channel no more; it is requested again later."""
        ...

    def line_closed(self, line: LineKey, cause: str) -> None:
        """Note that a connection has ended; `cause` is one of a small fixed set of words."""
        ...

    def has_joined(self, line: LineKey) -> bool:
        """Return whether this connection's frames have caught up, so that its predecessor may be closed."""
        ...

    def is_behind(self, line: LineKey) -> bool:
        """Return whether another connection with the same channels has brought news since this one's last data."""
        ...
