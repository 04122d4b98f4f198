"""
Benchmark of the journal: latency of an append, and frames per second.

Three loads run one after the other on one journal: single frames at 1,000/s, groups of what has arrived at 20,000/s,
and groups of 1,000 without a pause. A state of 200 kB is saved every second and acknowledges all frames, so that
trimming and checkpoints run as in service. Takes about 30 seconds.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from itertools import count
from pathlib import Path

import uvloop

from hedgelock_ingest.journal import Journal
from hedgelock_ingest.protocol.frames import Frame

_STATE = bytes(200_000)
_TRACE = bytes(16)


class AppendLoad:
    """One load on a journal, and its latencies."""

    def __init__(self, journal: Journal, *, seconds: float, rate: int | None) -> None:
        self._journal = journal
        self._seconds = seconds
        self._rate = rate
        self._latencies_ms: list[float] = []
        self._frames = 0
        self._raws = [bytes([48 + size % 10]) * size for size in range(300, 900, 7)]

    async def run(self) -> dict[str, float]:
        """Run the load for its time and return the figures."""
        started, cpu = time.perf_counter(), time.process_time()
        saving = asyncio.create_task(self._save_states())
        try:
            while (elapsed := time.perf_counter() - started) < self._seconds:
                due = 1_000 if self._rate is None else int(elapsed * self._rate) - self._frames
                if due <= 0:
                    await asyncio.sleep(0.001)
                    continue
                await self._append(due)
        finally:
            saving.cancel()
        return self._figures(time.perf_counter() - started, time.process_time() - cpu)

    async def _append(self, due: int) -> None:
        frames = [Frame("linear-a", n, _TRACE, self._raws[n % len(self._raws)]) for n in range(due)]
        began = time.perf_counter()
        await self._journal.append(frames)
        self._latencies_ms.append((time.perf_counter() - began) * 1_000)
        self._frames += due

    async def _save_states(self) -> None:
        for _ in count():
            await asyncio.sleep(1)
            await self._journal.save_state(self._journal.last_position, _STATE)

    def _figures(self, elapsed_s: float, cpu_s: float) -> dict[str, float]:
        ordered = sorted(self._latencies_ms)
        return {
            "appends": len(ordered),
            "frames_per_s": round(self._frames / elapsed_s),
            "cpu_percent": round(100 * cpu_s / elapsed_s, 1),
            "p50_ms": round(ordered[len(ordered) // 2], 3),
            "p99_ms": round(ordered[len(ordered) * 99 // 100], 3),
            "p999_ms": round(ordered[len(ordered) * 999 // 1000], 3),
            "max_ms": round(ordered[-1], 3),
        }


async def measure(folder: Path, seconds: float) -> dict[str, dict[str, float]]:
    """Run the loads on a fresh journal in `folder`."""
    journal = Journal.open(folder, max_bytes=4 * 1024**3)
    try:
        figures = {}
        for name, rate, share in (("singles_1000", 1_000, 0.4), ("arrived_20000", 20_000, 0.4), ("full", None, 0.2)):
            figures[name] = await AppendLoad(journal, seconds=seconds * share, rate=rate).run()
        figures["files_mb"] = _megabytes(folder)
        return figures
    finally:
        await journal.close(clean=True)


def _megabytes(folder: Path) -> dict[str, float]:
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    return {name: round(size / 1e6, 1) for name, size in sizes.items() if size > 100_000}


def main() -> None:
    """Print a table, or JSON with --json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=28, help="total time of all loads")
    parser.add_argument("--directory", type=Path, help="a folder on the disk to measure; default: the temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as folder:
        figures = uvloop.run(measure(Path(folder), min(arguments.seconds, 60)))
    if arguments.json:
        json.dump(figures, sys.stdout, indent=2)
        print()
        return
    for name, values in figures.items():
        print(f"{name:14}", "  ".join(f"{key} {value:g}" for key, value in values.items()))


if __name__ == "__main__":
    main()
