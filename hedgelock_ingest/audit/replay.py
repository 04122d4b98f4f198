"""Replay of a recorded journal through the translator: to stdout, or into topics with a prefix."""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from hedgelock_ingest.errors import JournalDamaged
from hedgelock_ingest.journal import journal_id_of, open_copy
from hedgelock_ingest.kafka.aiokafka_cluster import kafka_publisher
from hedgelock_ingest.kafka.publish_all import opened, publish_all
from hedgelock_ingest.models.topics import CONTRACTS
from hedgelock_ingest.protocol.frames import Frame
from hedgelock_ingest.settings import TOPIC_FIELDS, Settings
from hedgelock_ingest.translate.record import Record
from hedgelock_ingest.translate.translator import Translator

STDOUT = "-"


def replay(journal: Path, *, to: str, settings: Settings) -> int:
    """
    Translate every frame of a journal, from the oldest; the journal is not changed and may be in use.

    The snapshots of the first frames may have been deleted; such frames become dead letters.

    Args:
        journal: Its folder, or a copy of its database.
        to: `-` writes one line of JSON per record to stdout; any other text is the prefix of the topics' names, and the
            topics are created. Records that an earlier replay of this journal published there are not published again.
        settings: Kafka, and the interval of full order books.

    Returns:
        The number of records.

    Raises:
        JournalDamaged: It is not a journal, or cannot be read.
        KafkaError: The records cannot be published.
    """
    if not journal.exists():
        raise JournalDamaged(
            f"no journal at {journal}; expected the folder of one, which the first run creates in JOURNAL_DIRECTORY: "
            f"{_journals_in(settings)}"
        )
    records = _records(journal, settings)
    if to == STDOUT:
        return _write(records)
    return asyncio.run(_publish(records, journal_id_of(journal), prefixed(settings, to)))


def _journals_in(settings: Settings) -> str:
    folders = [settings.shard(shard).journal_directory for shard in settings.stream_shards]
    return ", ".join(f"{folder}{'' if folder.exists() else ' (none yet)'}" for folder in folders)


def _records(journal: Path, settings: Settings) -> Iterator[Record]:
    interval_ms = int(settings.order_book_state_interval * 1000) if settings.order_book_state_depth else 0
    translator = Translator(
        account_id=settings.bybit_account_id,
        state_depth=settings.order_book_state_depth,
        state_interval_ms=interval_ms,
    )
    frames: Iterator[tuple[int, Frame]] = open_copy(journal)
    last: int | None = None
    for position, frame in frames:
        if last is not None and position != last + 1:
            translator.lose_frames(frame.received_ns // 1_000_000)
        yield from translator.translate(position, frame)
        last = position


def _write(records: Iterator[Record]) -> int:
    count = 0
    for record in records:
        count += 1
        line = {
            "topic": record.topic.value,
            "key": record.key.decode(),
            "position": record.position,
            "record_index": record.number,
            "value": msgspec.Raw(record.value),
        }
        sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.flush()
    return count


def prefixed(settings: Settings, prefix: str) -> Settings:
    """Return settings whose topics, further ones included, have a prefix, and are created."""
    names = {field: prefix + getattr(settings, field) for field in TOPIC_FIELDS}
    routes = tuple(
        f"{CONTRACTS[topic].message.__name__}={prefix}{name}"
        for topic, further in settings.further_topics.items()
        for name in further
    )
    return settings.model_copy(update={**names, "kafka_routes": routes, "kafka_create_topics": True})


async def _publish(records: Iterator[Record], journal_id: str, settings: Settings) -> int:
    async with opened(kafka_publisher(settings, journal_id), {}, settle=False) as publisher:
        return await publish_all(publisher, records)
