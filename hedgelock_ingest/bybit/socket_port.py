"""The port between a line and the library that moves its bytes."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

type OnFrames = Callable[[list[bytes], int], None]
"""Takes the frames of one socket read, in order, and the wall clock in nanoseconds when they were read."""

MAX_FRAME_BYTES = 16 * 1024 * 1024
"""Far above anything Bybit sends, since what is not received cannot be kept as a dead letter."""

SEND_TIMEOUT_S = 10.0

USER_AGENT = "hedgelock-ingest"


class Ending(NamedTuple):
    """How a connection ended: a word of a small fixed set, and what an operator may want to read beside it."""

    cause: str
    detail: str = ""


class Connection(Protocol):
    """One open WebSocket; everything runs in the event loop that opened it."""

    ended: asyncio.Future[Ending]
    """Done when the connection is gone and its last frame delivered."""

    def deliver(self, on_frames: OnFrames) -> None:
        """Hand over what has arrived since the opening, then each further frame as it arrives."""
        ...

    async def send(self, text: str) -> None:
        """
        Send one text frame.

        Raises:
            LineLost: The connection is no more, or does not take it in time.
        """
        ...

    async def close(self, timeout_s: float) -> None:
        """Say good-bye and wait for the end, or cut the connection when the time is up."""
        ...


type Connect = Callable[[str], Awaitable[Connection]]
"""
Opens a connection to a URL; cancelled, it leaves nothing behind.

Raises:
    LineLost: It could not be opened, whatever the reason.
"""
