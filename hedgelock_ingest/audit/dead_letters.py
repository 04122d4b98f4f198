"""Dead letters: list and replay frames that could not be decoded, and records that could not be published."""

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import msgspec

from hedgelock_ingest.journal import dead_letters_in, journal_id_of
from hedgelock_ingest.kafka.aiokafka_cluster import kafka_publisher
from hedgelock_ingest.kafka.consumer import read_span
from hedgelock_ingest.kafka.publish_all import opened
from hedgelock_ingest.kafka.publisher import Publisher
from hedgelock_ingest.models.gaps_and_dead_letters import DeadLetter
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.frames import Frame
from hedgelock_ingest.settings import Settings
from hedgelock_ingest.translate.record import Record, Refusal, RefusedRecord
from hedgelock_ingest.translate.translator import Translator

REPLAYED = "dead-letter"
"""The `source` of a record made from a dead letter."""


@dataclass(frozen=True, slots=True)
class StoredDeadLetter:
    """
    One dead letter with its name: `journal id:position:record index`.

    `is_in_topic` is false for those stored only in the journal's table, too large for Kafka or refused by it; their
    `raw` is the value of the refused record, unless that record was a dead letter itself.
    """

    id: str
    journal_id: str
    position: int
    record_index: int
    at: datetime
    feed: str
    line: str
    reason: str
    raw: bytes
    is_in_topic: bool
    trace_id: UUID | None = None


async def list_dead_letters(settings: Settings, *, feed: str | None = None) -> list[StoredDeadLetter]:
    """
    Collect the letters of the topic and of the shards' journals on this machine, oldest first.

    Args:
        settings: Kafka, and the folders of the journals.
        feed: Only letters of feeds with this prefix.

    Raises:
        KafkaUnavailable: No answer, or not in time.
        JournalDamaged: A journal cannot be read.
    """
    found = [letter async for letter in _in_topic(settings)]
    for shard in settings.stream_shards:
        directory = settings.shard(shard).journal_directory
        if directory.exists():
            found += [_of_refused(journal_id_of(directory), refused) for refused in dead_letters_in(directory)]
    return sorted((each for each in found if feed is None or each.feed.startswith(feed)), key=lambda each: each.at)


@dataclass(frozen=True, slots=True)
class Replayed:
    """
    Result of a replay; `records` counts those that are in Kafka.

    `still_failing` are letters that still cannot be decoded, or with a record that Kafka refuses permanently, and the
    current reason.
    """

    letters: int
    records: int
    still_failing: list[tuple[StoredDeadLetter, str]]


async def replay_letters(
    settings: Settings,
    chosen: Sequence[StoredDeadLetter],
    *,
    publisher: Callable[[Settings, str], Publisher] = kafka_publisher,
) -> Replayed:
    """
    Translate the raw frames of letters by the current rules, and publish the records.

    A record made from a letter has the source `dead-letter` and is published once, however often this is called: its
    journal id is `<journal id>:dead-letters`, and records that have arrived under it are not sent again. A frame that
    changes a state that is no longer known, such as a ticker's delta, remains a dead letter.

    Args:
        settings: Kafka, and the id of the account.
        chosen: Letters of one or several journals; those of refused records, which have no frame, are left out.
        publisher: Creates the publisher, from the settings and the journal id of the records.

    Raises:
        KafkaError: The records cannot be published.
    """
    published = 0
    still_failing: list[tuple[StoredDeadLetter, str]] = []
    frames = [letter for letter in chosen if letter.line]  # a refused record has no frame
    for journal_id in dict.fromkeys(letter.journal_id for letter in frames):
        own = sorted((each for each in frames if each.journal_id == journal_id), key=lambda each: each.position)
        records: list[Record] = []
        for letter, record in _translated(settings, own):
            if record.topic is Topic.INGEST_DEAD_LETTERS:
                still_failing.append((letter, str(msgspec.json.decode(record.value)["reason"])))
            else:
                records.append(record)
        refused = await _publish(publisher(settings, f"{journal_id}:dead-letters"), records)
        letter_at = {letter.position: letter for letter in own}
        still_failing += [(letter_at[each.record.position], each.reason) for each in refused]
        published += len(records) - len(refused)
    return Replayed(len(frames), published, still_failing)


def _translated(settings: Settings, own: Sequence[StoredDeadLetter]) -> Iterator[tuple[StoredDeadLetter, Record]]:
    translator = Translator(account_id=settings.bybit_account_id, state_interval_ms=0)
    for letter in own:
        trace = letter.trace_id.bytes if letter.trace_id else bytes(16)
        frame = Frame(letter.line, int(letter.at.timestamp() * 1e9), trace, letter.raw)
        for record in translator.translate(letter.position, frame):
            yield letter, msgspec.structs.replace(record, value=_marked(record.value))


def _marked(value: bytes) -> bytes:
    fields = msgspec.json.decode(value)
    return msgspec.json.encode({**fields, "source": REPLAYED})


async def _publish(publisher: Publisher, records: Sequence[Record]) -> list[Refusal]:
    if not records:
        return []
    found: list[Refusal] = []

    async def keep(refused: Sequence[Refusal]) -> None:
        found.extend(refused)

    async with opened(publisher, {}, settle=False):
        await publisher.publish(records, keep)
    return found


async def _in_topic(settings: Settings) -> AsyncGenerator[StoredDeadLetter]:
    async for group in read_span(settings, [Topic.INGEST_DEAD_LETTERS]):
        for record in group:
            if record.value is None or record.name is None or record.journal_id is None:
                continue
            letter = DeadLetter.model_validate_json(record.value)
            yield _letter(record.journal_id.decode(), *record.name, letter, is_in_topic=True)


def _of_refused(journal_id: str, refused: RefusedRecord) -> StoredDeadLetter:
    if refused.topic == Topic.INGEST_DEAD_LETTERS:
        letter = DeadLetter.model_validate_json(refused.body)
        return _letter(journal_id, refused.position, refused.record_index, letter, is_in_topic=False)
    return StoredDeadLetter(
        id=f"{journal_id}:{refused.position}:{refused.record_index}",
        journal_id=journal_id,
        position=refused.position,
        record_index=refused.record_index,
        at=datetime.fromtimestamp(refused.at_ns / 1e9, UTC),
        feed=refused.topic,
        line="",
        reason=refused.reason,
        raw=refused.body,
        is_in_topic=False,
    )


def _letter(
    journal_id: str, position: int, record_index: int, letter: DeadLetter, *, is_in_topic: bool
) -> StoredDeadLetter:
    return StoredDeadLetter(
        id=f"{journal_id}:{position}:{record_index}",
        journal_id=journal_id,
        position=position,
        record_index=record_index,
        at=letter.timestamp,
        feed=letter.feed,
        line=letter.line,
        reason=letter.reason,
        raw=letter.raw,
        is_in_topic=is_in_topic,
        trace_id=letter.trace_id,
    )
