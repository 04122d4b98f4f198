"""Hear what other processes write to `account_raw` from now on."""

import asyncio
from collections.abc import AsyncGenerator

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError as AiokafkaError

from hedgelock_ingest.errors import KafkaUnavailable
from hedgelock_ingest.kafka.client import client_options
from hedgelock_ingest.kafka.headers import JOURNAL_ID
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.settings import Settings

START_TIMEOUT_S = 15.0


async def hear_polls(settings: Settings, own_journal_id: str) -> AsyncGenerator[bytes]:
    """
    Yield the value of each record that is not of our own journal, from the present end on, for ever.

    The topic must be there: asking for one that is not may create it, with settings that are not ours.

    Raises:
        KafkaUnavailable: No broker answers at the start, or none any more.
    """
    own = own_journal_id.encode()
    consumer = AIOKafkaConsumer(
        settings.topic(Topic.ACCOUNT_RAW),
        **client_options(settings),
        enable_auto_commit=False,
        auto_offset_reset="latest",
        retry_backoff_ms=300,
    )
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            await consumer.start()
        async for record in consumer:
            if record.value is not None and dict(record.headers).get(JOURNAL_ID) != own:
                yield record.value
    except TimeoutError as error:
        raise KafkaUnavailable(f"no answer within {START_TIMEOUT_S:g} s while the polls were to be heard") from error
    except (AiokafkaError, OSError) as error:
        raise KafkaUnavailable(f"{type(error).__name__} while the polls were heard") from error
    finally:
        await consumer.stop()
