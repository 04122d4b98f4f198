"""Bounds of a backfill: data that the stream will still publish, and the lock against another backfill."""

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from hedgelock_ingest.errors import BackfillRunning, JournalDamaged
from hedgelock_ingest.journal import SavedState, saved_state_in
from hedgelock_ingest.pipeline.checkpoints import Checkpoint
from hedgelock_ingest.protocol.channels import feed_name
from hedgelock_ingest.protocol.frames import PRIVATE
from hedgelock_ingest.protocol.private_messages import PRIVATE_CHANNELS
from hedgelock_ingest.settings import Settings, Shard
from hedgelock_ingest.translate.pending import NOTHING, Pending, pending_of
from hedgelock_ingest.translate.state import State

_LOCK_TIMEOUT_S = 120.0
_LOCK_RETRY_S = 0.1


@asynccontextmanager
async def backfill_lock(directory: Path) -> AsyncIterator[None]:
    """
    Hold the backfill lock of these journals; it is released when the process ends.

    Raises:
        BackfillRunning: Another one did not end within 120 s.
    """
    descriptor = _lock_file(directory)
    try:
        began_s = time.monotonic()
        while not _is_locked(descriptor):
            if time.monotonic() - began_s > _LOCK_TIMEOUT_S:
                raise BackfillRunning(f"another backfill has been running for {_LOCK_TIMEOUT_S:g} s; try again later")
            await asyncio.sleep(_LOCK_RETRY_S)
        yield
    finally:
        os.close(descriptor)


def pending(settings: Settings, *, overlap_ms: int) -> dict[str, Pending]:
    """
    Read from the journals on this machine which data the stream will still publish, by feed.

    A shard without a journal has never run here and has nothing pending.

    Args:
        settings: The shards, and the folders of their journals.
        overlap_ms: How far before its last known data the stream requests data.

    Raises:
        JournalDamaged: A journal cannot be read; the stream recovers it when it starts.
    """
    found: dict[str, Pending] = {}
    for name in settings.stream_shards:
        shard = settings.shard(name)
        directory = shard.journal_directory
        saved = saved_state_in(directory) if (directory / "journal.db").exists() else None
        for feed in _feeds(shard):
            found[feed] = NOTHING if saved is None else _pending(feed, saved, overlap_ms)
    return found


def _feeds(shard: Shard) -> list[str]:
    feeds = [":".join(each) for each in shard.public_channels()]
    if shard.carries_private_feeds:
        feeds += [feed_name(PRIVATE, channel) for channel in PRIVATE_CHANNELS]
    return feeds


def _pending(feed: str, saved: SavedState, overlap_ms: int) -> Pending:
    next_ms = None if saved.next_frame is None else saved.next_frame.received_ns // 1_000_000
    return pending_of(feed, _state(saved), next_frame_ms=next_ms, overlap_ms=overlap_ms)


def _state(saved: SavedState) -> State:
    if saved.state is None:
        return State()
    try:
        checkpoint = msgspec.msgpack.decode(saved.state, type=Checkpoint)
        return msgspec.msgpack.decode(checkpoint.translator, type=State)
    except msgspec.DecodeError as error:
        raise JournalDamaged(
            "the saved state of the journal cannot be read, so the data that the stream will still publish is unknown; "
            "start the stream, which recovers it, then try again"
        ) from error


def _lock_file(directory: Path) -> int:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(directory / "backfill.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
