"""The journal after its process was killed."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hedgelock_ingest.journal import Journal
from hedgelock_ingest_tests.journal.appender import killed_after
from hedgelock_ingest_tests.journal.builders import MAX_BYTES, a_frame, everything, frames, opened


async def test_killed_process_leaves_all_durable_frames_and_no_partial_group(tmp_path: Path, moments: Random) -> None:
    """Frames of completed appends are present, in order and unchanged; the others as complete groups or not at all."""
    for _ in range(6):
        durable = await asyncio.to_thread(
            killed_after, tmp_path, moments.randrange(1, 60), seed=moments.randrange(2**32)
        )
        async with opened(tmp_path, clean=False) as journal:
            assert journal.recovery.is_clean
            assert not journal.ended_cleanly
            assert journal.last_position >= durable
            position, state = journal.load_state()
            assert state == (str(position).encode() * 1_000 if position else None)
            for position, frame in everything(journal):
                assert frame == a_frame(position)


class JournalHistory:
    """A journal, and its expected content."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._owners = 0
        self._last = 0
        self._state_position = 0
        self._journal = self._open()
        self._identity = self._journal.journal_id

    async def append(self, sizes: list[int]) -> None:
        """Append groups of these sizes in overlapping calls."""
        batches, starts = [], []
        for size in sizes:
            starts.append(self._last + 1)
            batches.append(frames(self._last + 1, self._last + size))
            self._last += size
        assert await asyncio.gather(*map(self._journal.append, batches)) == starts

    async def save_state(self, share: float) -> None:
        """Acknowledge a share of the backlog."""
        self._state_position += int(share * (self._last - self._state_position))
        await self._journal.save_state(self._state_position, b"%d" % self._state_position)

    async def restart(self, crash: bool) -> None:
        """Close and open, or continue with the files that a killed process would leave."""
        if crash:
            shutil.copytree(self._folder / str(self._owners), self._folder / str(self._owners + 1))
            self._owners += 1
        await self._journal.close(clean=not crash)
        self._journal = self._open()
        assert self._journal.ended_cleanly is not crash

    async def end(self) -> None:
        """Close the journal."""
        await self._journal.close(clean=True)

    def check(self) -> None:
        """Compare the journal with its expected content."""
        journal = self._journal
        expected = [(position, a_frame(position)) for position in range(self._state_position + 1, self._last + 1)]
        assert everything(journal, after=self._state_position) == expected
        assert (journal.last_position, journal.state_position) == (self._last, self._state_position)
        assert (journal.backlog_bytes == 0) == (self._last == self._state_position)

    def _open(self) -> Journal:
        journal = Journal.open(self._folder / str(self._owners), max_bytes=MAX_BYTES)
        assert journal.recovery.is_clean
        return journal


SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=4)
STEP = st.one_of(
    SIZES.map(lambda sizes: partial(JournalHistory.append, sizes=sizes)),
    st.floats(0, 1).map(lambda share: partial(JournalHistory.save_state, share=share)),
    st.booleans().map(lambda crash: partial(JournalHistory.restart, crash=crash)),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, max_size=15))
def test_any_history_gives_back_what_was_appended(
    tmp_path: Path, steps: list[Callable[[JournalHistory], Awaitable[None]]]
) -> None:
    """Frames after the state's position are exactly those appended, for any sequence of steps."""

    async def scenario(folder: Path) -> None:
        history = JournalHistory(folder)
        for step in steps:
            await step(history)
            history.check()
        await history.end()

    with TemporaryDirectory(dir=tmp_path) as folder:
        asyncio.run(scenario(Path(folder)))
