"""
A process that appends to a journal until it is killed: `python -m hedgelock_ingest_tests.journal.appender FOLDER SEED`.

It says on stdout how far frames are durable, after each append.
"""

import asyncio
import sys
from pathlib import Path
from random import Random

from hedgelock_ingest_tests.journal.builders import frames, opened


async def append_until_killed(folder: Path, random: Random) -> None:
    """Append groups of any size, and save a state now and then."""
    async with opened(folder) as journal:
        while True:
            first = journal.last_position + 1
            last = first + random.choice((1, 1, 1, 30, 400)) - 1
            assert await journal.append(frames(first, last)) == first
            print(last, flush=True)
            if random.random() < 0.1:
                await journal.save_state(last, str(last).encode() * 1_000)


if __name__ == "__main__":
    asyncio.run(append_until_killed(Path(sys.argv[1]), Random(sys.argv[2])))
