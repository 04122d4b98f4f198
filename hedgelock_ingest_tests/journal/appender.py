"""
A process that appends to a journal until it is killed: `python -m hedgelock_ingest_tests.journal.appender FOLDER SEED`.

It prints the last durable position after each append.
"""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

from hedgelock_ingest.pipeline.ports import FrameLog
from hedgelock_ingest_tests.journal.builders import frames, opened


async def append_until_killed(log: FrameLog, random: Random, report: Callable[[int], None]) -> None:
    """Append groups of random size, report the last position after each, and save a state at random."""
    while True:
        first = log.last_position + 1
        last = first + random.choice((1, 1, 1, 30, 400)) - 1
        assert await log.append(frames(first, last)) == first
        report(last)
        if random.random() < 0.1:
            await log.save_state(last, str(last).encode() * 1_000)


def killed_after(folder: Path, appends: int, *, seed: int) -> int:
    """Run an appender, kill it after `appends` appends, and return the last durable position that it reported."""
    command = [sys.executable, "-m", "hedgelock_ingest_tests.journal.appender", str(folder), str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(appends)]
        process.kill()
        lines += process.stdout.readlines()
    return max(int(line) for line in lines if line.endswith("\n"))


async def _run(folder: Path, random: Random) -> None:
    async with opened(folder) as journal:
        await append_until_killed(journal, random, partial(print, flush=True))


if __name__ == "__main__":
    asyncio.run(_run(Path(sys.argv[1]), Random(sys.argv[2])))
