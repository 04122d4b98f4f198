"""The time from which on a feed is requested from REST, while its frames wait for Kafka."""

from pathlib import Path

import pytest

from hedgelock_ingest.journal import Journal
from hedgelock_ingest.protocol.frames import Frame
from hedgelock_ingest_tests.builders import AT_MS, a_frame, a_note, a_trade
from hedgelock_ingest_tests.pipeline.streaming import MAX_BYTES, settings_for, stream_of

FILLS = "private:execution"
WAITING = [a_note("started", FILLS), a_note("up", FILLS), a_frame(a_trade())]


@pytest.mark.parametrize(
    ("frames", "seen_ms"), [(WAITING, AT_MS + 5), ([], None)], ids=["frames wait", "nothing ever was"]
)
async def test_feed_that_is_not_translated_yet_was_seen_with_the_first_waiting_frame(
    tmp_path: Path, frames: list[Frame], seen_ms: int | None
) -> None:
    """Without Kafka since the first start no state has the feed, and fills since then must be requested."""
    journal = Journal.open(tmp_path, max_bytes=MAX_BYTES)
    try:
        if frames:
            await journal.append(frames)
        stream = stream_of(settings_for("127.0.0.1:1", "unused."), journal)

        assert await stream.last_seen_ms(FILLS) == seen_ms
    finally:
        await journal.close(clean=False)
