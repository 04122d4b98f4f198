"""Replay of dead letters whose records Kafka refuses."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from hedgelock_ingest.audit.dead_letters import StoredDeadLetter, replay_letters
from hedgelock_ingest.kafka.publisher import Publisher, refuse_none
from hedgelock_ingest.models.topics import Offsets
from hedgelock_ingest.settings import Settings
from hedgelock_ingest.translate.record import Keep, Record, Refusal


class _RefusingPublisher(Publisher):
    """Accepts all records but those of one frame; connects to nothing."""

    def __init__(self, refused_position: int) -> None:
        self._refused_position = refused_position

    async def open(self, known: Offsets | None, *, settle: bool, journal_end: int = 0) -> None:
        """Connect to nothing."""

    async def publish(self, records: Sequence[Record], keep: Keep = refuse_none) -> None:
        await keep([Refusal(record, "too large") for record in records if record.position == self._refused_position])

    async def close(self) -> None:
        """Nothing is open."""


def a_letter(position: int) -> StoredDeadLetter:
    """Build a letter with a trade that can be decoded by now."""
    row = {"T": 1_700_000_000_000, "s": "BTCUSDT", "S": "Buy", "v": "1", "p": "2.50", "i": f"t{position}", "seq": 1}
    frame = {"topic": "publicTrade.BTCUSDT", "type": "snapshot", "ts": 1_700_000_000_001, "data": [row]}
    return StoredDeadLetter(
        id=f"journal:{position}:0",
        journal_id="journal",
        position=position,
        record_index=0,
        at=datetime(2026, 4, 14, tzinfo=UTC),
        feed="linear:publicTrade.BTCUSDT",
        line="linear-a",
        reason="malformed",
        raw=json.dumps(frame).encode(),
        is_in_topic=True,
    )


async def test_record_that_kafka_refuses_is_reported_with_its_letter() -> None:
    """Otherwise the replay would look complete, and the record would be missing in Kafka."""
    first, second = a_letter(3), a_letter(7)

    replayed = await replay_letters(Settings(), [first, second], publisher=lambda *_: _RefusingPublisher(7))

    assert (replayed.letters, replayed.records) == (2, 1)
    assert replayed.still_failing == [(second, "too large")]
