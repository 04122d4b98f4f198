"""Builders of frames and journals."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

from hedgelock_ingest.journal import Journal
from hedgelock_ingest.journal.disk_rules import KEEP_BYTES
from hedgelock_ingest.pipeline.ports import FrameLog
from hedgelock_ingest.protocol.frames import Frame

MAX_BYTES = 1_000_000_000


def a_frame(number: int = 1, *, raw_bytes: int = 300, origin: str = "linear-a") -> Frame:
    """Return a frame whose content is derived from its number, so that a wrong one is detected."""
    random = Random(number)
    return Frame(origin, 1_700_000_000_000_000_000 + number, random.randbytes(16), random.randbytes(raw_bytes))


def frames(first: int, last: int, *, raw_bytes: int = 300) -> list[Frame]:
    """Return the frames with these numbers, both ends included."""
    return [a_frame(number, raw_bytes=raw_bytes) for number in range(first, last + 1)]


@asynccontextmanager
async def opened(
    folder: Path, *, max_bytes: int = MAX_BYTES, keep_bytes: int = KEEP_BYTES, clean: bool = True
) -> AsyncIterator[Journal]:
    """Open a journal for the length of a block."""
    journal = Journal.open(folder, max_bytes=max_bytes, keep_bytes=keep_bytes)
    try:
        yield journal
    finally:
        await journal.close(clean=clean)


def everything(journal: FrameLog, after: int = 0) -> list[tuple[int, Frame]]:
    """Read all frames after a position."""
    found: list[tuple[int, Frame]] = []
    while more := journal.read(found[-1][0] if found else after, limit=1_000):
        found.extend(more)
    return found
