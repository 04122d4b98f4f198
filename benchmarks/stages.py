"""
Processor time of each stage of the stream, in microseconds per frame: `python -m benchmarks.stages`.

The same frames pass through one stage after the other in one process, in groups as they form at 20,000 frames/s.
The figures are the processor time of all threads of the process, which other load on the machine affects less than
latencies.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.frames import CATEGORIES, CHANNELS, Frames, websocket_frame
from hedgelock_ingest.bybit.websockets_client import take_text_frames
from hedgelock_ingest.clock import SystemClock
from hedgelock_ingest.journal import Journal
from hedgelock_ingest.kafka.aiokafka_cluster import kafka_publisher
from hedgelock_ingest.pipeline.arrivals import Arrivals
from hedgelock_ingest.pipeline.frame_buffer import Group
from hedgelock_ingest.pipeline.publishing import translate_group
from hedgelock_ingest.pipeline.receiver import Receiver
from hedgelock_ingest.protocol.channels import feed_name
from hedgelock_ingest.protocol.frames import Category
from hedgelock_ingest.protocol.line_events import LineKey
from hedgelock_ingest.protocol.messages import Control, DataMessage, decode
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest.settings import Settings
from hedgelock_ingest.translate.record import Record
from hedgelock_ingest.translate.translator import Translator

_FRAMES_PER_MS = 20


class Stages:
    """Runs frames through every stage, one stage at a time, and measures each."""

    def __init__(self, frames: int, group: int) -> None:
        self.count = frames
        self.us_per_frame: dict[str, float] = {}
        self._group = group
        self._frames = Frames()
        feeds = [feed_name(Category(category), channel) for category in CATEGORIES for channel in CHANNELS]
        self._receiver = Receiver(feeds, lambda: None, clock=SystemClock())
        self._lines = {category: LineKey(f"{category}-a", 1) for category in CATEGORIES}
        for line in self._lines.values():
            self._receiver.line_opened(line, CHANNELS, lambda channel: None)

    async def run(self, folder: Path, settings: Settings) -> None:
        """Measure every stage, and store the figures in `us_per_frame`."""
        reads = list(self._reads())
        with self._timed("split socket reads into frames"):
            for _, content in reads:
                take_text_frames(content, 0, [])
        cut = [(category, _cut(content)) for category, content in reads]
        with self._timed("decode"):
            decoded = [(category, raws, [_message(raw) for raw in raws]) for category, raws in cut]
        arrivals = self._receive(decoded)
        await self._journal(folder, arrivals)
        records = self._translate(arrivals)
        await self._publish(settings, records)

    def _reads(self) -> Iterator[tuple[str, bytes]]:
        began_ms = time.time_ns() // 1_000_000
        for category in CATEGORIES:
            snapshots = [self._frames.snapshot(category, channel, began_ms) for channel in CHANNELS]
            yield category, b"".join(websocket_frame(each) for each in snapshots if each is not None)
        for done in range(0, self.count, self._group):
            contents = self._frames.take(self._group, began_ms + done // _FRAMES_PER_MS)
            yield from zip(CATEGORIES, contents, strict=True)

    def _receive(self, reads: Sequence[tuple[str, list[bytes], list[DataMessage]]]) -> list[Arrivals]:
        groups: list[Arrivals] = []
        with self._timed("receive: arbitration, trace id"):
            for category, raws, messages in reads:
                self._receiver.frames_received(self._lines[category], raws, messages, time.time_ns())
                if category == CATEGORIES[-1]:
                    groups.append(arrivals := Arrivals())
                    while self._receiver.waiting:
                        arrivals.extend(self._receiver.take())
        return groups

    async def _journal(self, folder: Path, groups: Sequence[Arrivals]) -> None:
        journal = Journal.open(folder, max_bytes=10 * 1024**3)
        try:
            with self._timed("journal: encode, checksum, commit"):
                for group in groups:
                    await journal.append(group.frames)
        finally:
            await journal.close(clean=True)

    def _translate(self, groups: Sequence[Arrivals]) -> list[list[Record]]:
        translator = Translator()
        translated: list[list[Record]] = []
        after = 0
        with self._timed("translate"):
            for group in groups:
                positions = range(after + 1, after + 1 + len(group))
                after, _, _, records = translate_group(translator, Group(positions, group), after)
                translated.append(records)
        with self._timed("save the state, once (not per frame)", per_frame=False):
            translator.save()
        return translated

    async def _publish(self, settings: Settings, groups: Sequence[Sequence[Record]]) -> None:
        for compression in ("none", "lz4"):
            publisher = kafka_publisher(settings.model_copy(update={"kafka_compression": compression}), "00" * 16)
            await publisher.open(None, settle=False)
            try:
                with self._timed(f"publish: headers, batches, requests; compression {compression}"):
                    for records in groups:
                        if records:
                            await publisher.publish(records)
            finally:
                await publisher.close()

    @contextmanager
    def _timed(self, stage: str, *, per_frame: bool = True) -> Iterator[None]:
        began_s = time.process_time()
        yield
        self.us_per_frame[stage] = (time.process_time() - began_s) / (self.count if per_frame else 1) * 1e6


def _message(raw: bytes) -> DataMessage:
    message = decode(raw)
    assert not isinstance(message, Control)
    return message


def _cut(content: bytes) -> list[bytes]:
    raws: list[bytes] = []
    take_text_frames(content, 0, raws)
    return raws


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages", description="Microseconds per frame by stage.")
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--group", type=int, default=60, help="frames per group")
    arguments = parser.parse_args()
    stages = Stages(arguments.frames, arguments.group)
    with EmbeddedKafka() as kafka, tempfile.TemporaryDirectory() as folder:
        uvloop.run(stages.run(Path(folder), Settings(kafka_bootstrap_servers=kafka.bootstrap_servers)))
    table = Table(title=f"{arguments.frames:,} frames in groups of {arguments.group}")
    table.add_column("stage")
    table.add_column("µs per frame", justify="right")
    for stage, figure in stages.us_per_frame.items():
        table.add_row(stage, f"{figure:,.2f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
