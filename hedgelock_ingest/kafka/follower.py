"""Read whole topics from their beginning and go on with what comes, headers and all."""

from collections.abc import AsyncGenerator, Sequence
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError as AiokafkaError

from hedgelock_ingest.errors import KafkaUnavailable
from hedgelock_ingest.kafka.client import client_options
from hedgelock_ingest.kafka.headers import JOURNAL_ID, RecordName, name_in
from hedgelock_ingest.settings import Settings

_WAIT_MS = 200
_RECORDS_AT_ONCE = 5_000


class Followed(NamedTuple):
    """A record with the name that its journal gave it; no name on a record that is not ours."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    journal_id: bytes | None
    name: RecordName | None
    timestamp_ms: int = 0


async def follow(settings: Settings, partitions: dict[str, int]) -> AsyncGenerator[Sequence[Followed]]:
    """
    Yield groups of records, in order within a partition, for ever; an empty group when nothing comes for a while.

    Args:
        settings: How Kafka is reached.
        partitions: How many each topic has, by Kafka's name.

    Raises:
        KafkaUnavailable: No broker answers at the start.
    """
    consumer = AIOKafkaConsumer(
        **client_options(settings), enable_auto_commit=False, auto_offset_reset="earliest", retry_backoff_ms=300
    )
    try:
        await consumer.start()
        consumer.assign(
            [TopicPartition(topic, number) for topic, count in partitions.items() for number in range(count)]
        )
        while True:
            fetched = await consumer.getmany(timeout_ms=_WAIT_MS, max_records=_RECORDS_AT_ONCE)
            yield [followed(message) for messages in fetched.values() for message in messages]
    except (AiokafkaError, OSError) as error:
        raise KafkaUnavailable(f"{type(error).__name__} while reading") from error
    finally:
        await consumer.stop()


def followed(message: ConsumerRecord[bytes, bytes]) -> Followed:
    """Take a record of aiokafka's."""
    journal_id = dict(message.headers).get(JOURNAL_ID)
    name = None if journal_id is None else name_in(message.headers, journal_id)
    place = message.topic, message.partition, message.offset
    return Followed(*place, message.key, message.value, journal_id, name, message.timestamp)
