"""Port between a line and the WebSocket library."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

type OnFrames = Callable[[list[bytes], int], None]
"""Accepts the frames of one socket read, in order, and the wall-clock time of the read in nanoseconds."""

MAX_FRAME_BYTES = 16 * 1024 * 1024
"""Far above any frame of Bybit's, since a frame that is not received cannot become a dead letter."""

SEND_TIMEOUT_S = 10.0

OPEN_TIMEOUT_S = 8.0
"""Of a client by itself; less than the timeouts of a line and of `check`, which do not show what did not answer."""

TLS_TIMEOUT_S = 7.0
"""Less than all of the opening, so that a port without TLS and one that does not answer give different errors."""

USER_AGENT = "hedgelock-ingest"


class Ending(NamedTuple):
    """End of a connection: its cause, from a small fixed set, and details for the operator."""

    cause: str
    detail: str = ""


class WebSocket(Protocol):
    """One open WebSocket; everything runs in the event loop that opened it."""

    ended: asyncio.Future[Ending]
    """Done when the connection has ended and its last frame is delivered."""

    def deliver(self, on_frames: OnFrames) -> None:
        """Deliver the frames that have arrived since the opening, then each further frame as it arrives."""
        ...

    async def send(self, text: str) -> None:
        """
        Send one text frame.

        Raises:
            LineLost: The connection has ended, or did not accept the frame in time.
        """
        ...

    async def close(self, timeout_s: float) -> None:
        """Send a close frame and wait for the end, or abort the connection at the timeout."""
        ...


type Connect = Callable[[str], Awaitable[WebSocket]]
"""
Opens a connection to a URL; if cancelled, it leaves no resources open.

Raises:
    LineLost: It could not be opened, whatever the reason.
"""
