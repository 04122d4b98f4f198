"""A full disk while the stream saves a state or a dead letter: it waits, and continues."""

from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from structlog.testing import capture_logs

from hedgelock_ingest.errors import JournalWriteFailed
from hedgelock_ingest.journal import Journal, dead_letters_in
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest.translate.record import RefusedRecord
from hedgelock_ingest_tests.builders import a_frame, a_liquidation, a_trade
from hedgelock_ingest_tests.pipeline.streaming import settings_for, stream_once, values

FULL = "the journal's disk refused a write: disk full"


class StateRefused(Journal):
    """A journal whose disk is full when the first state is saved."""

    refusals = 2

    async def save_state(self, position: int, state: bytes) -> None:
        """Refuse a few times, then save."""
        if self.refusals:
            self.refusals -= 1
            raise JournalWriteFailed(FULL)
        await super().save_state(position, state)


class DeadLetterRefused(Journal):
    """A journal whose disk is full when the first dead letter is stored."""

    refusals = 2

    async def add_dead_letter(self, letter: RefusedRecord) -> None:
        """Refuse a few times, then store."""
        if self.refusals:
            self.refusals -= 1
            raise JournalWriteFailed(FULL)
        await super().add_dead_letter(letter)


async def test_state_that_the_disk_refuses_does_not_end_the_stream(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """A state is saved before the first record is sent; frames received meanwhile are kept; it is logged once."""
    settings = settings_for(kafka.bootstrap_servers, topic_prefix)
    with capture_logs() as logs:
        await stream_once(settings, tmp_path, [a_frame(a_trade("t1"))], kind=StateRefused)

    assert [line["event"] for line in logs].count("state_not_saved") == 1
    assert [trade["trade_id"] for trade in await values(settings, Topic.MARKET_TRADES)] == ["t1"]


async def test_dead_letter_that_the_disk_refuses_is_stored_later(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """Accepted records are in Kafka once, although their frames are published again with the refused one."""
    settings = settings_for(kafka.bootstrap_servers, topic_prefix)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    tiny = {"max.message.bytes": "1100"}
    await admin.create_topics([NewTopic(settings.topic(Topic.MARKET_TRADES), 6, 1, topic_configs=tiny)])
    await admin.close()
    frames = [a_frame(a_liquidation()), a_frame(a_trade("t1"))]
    with capture_logs() as logs:
        await stream_once(settings, tmp_path, frames, kind=DeadLetterRefused)

    events = [line["event"] for line in logs]
    assert (events.count("state_not_saved"), events.count("records_refused")) == (1, 1)
    assert [(letter.position, letter.attempts) for letter in dead_letters_in(tmp_path)] == [(2, 1)]
    assert len(await values(settings, Topic.MARKET_LIQUIDATIONS)) == 1
