"""Copies in a further topic: complete, in order and once, as the records are, also over kills."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from random import Random

import pytest

from hedgelock_ingest.models.topics import CONTRACTS, Topic
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.kafka.read_topic import Record, read_topic
from hedgelock_ingest_tests.processes.stage import staged

COPIED = (Topic.MARKET_TRADES, Topic.MARKET_ORDER_BOOKS)


@pytest.mark.proof
async def test_copies_are_as_the_records_after_kills(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path, moments: Random
) -> None:
    """A kill may come between a record and its copy: the next process finds which of both has arrived."""
    copies, servers = f"{topic_prefix}copies", kafka.bootstrap_servers
    routes = ",".join(f"{_type_of(topic)}={copies}" for topic in COPIED)
    async with staged(kafka, topic_prefix, tmp_path, rate=2_000, KAFKA_ROUTES=routes) as stage:
        stage.stream.start()
        await stage.stream.ready()
        for _ in range(4):
            await stage.stream.until_stats("busy", lambda found: found["frames_acknowledged"] > 1_000)
            await asyncio.sleep(moments.uniform(0.0, 2.0))
            with stage.outage():
                await stage.stream.kill()
                stage.stream.start()
                await stage.stream.ready()
        await stage.all_received()
        await stage.stream.stopped()
        await stage.proved()
        copied = await read_topic(servers, copies, timeout_s=60)
        for topic in COPIED:
            found = _by_key(each for each in copied if dict(each.headers)["message-type"] == _type_of(topic).encode())
            assert found == _by_key(await read_topic(servers, stage.topic(topic), timeout_s=60))
    names = [_name(each) for each in copied]
    assert len(names) == len(set(names)) > 1_000


def _type_of(topic: Topic) -> str:
    return CONTRACTS[topic].message.__name__


def _by_key(records: Iterable[Record]) -> dict[bytes | None, list[bytes | None]]:
    """Return the values of each key, in order."""
    found: defaultdict[bytes | None, list[bytes | None]] = defaultdict(list)
    for record in records:
        found[record.key].append(record.value)
    return dict(found)


def _name(record: Record) -> tuple[bytes, ...]:
    headers = dict(record.headers)
    return headers["journal-id"], headers["journal-position"], headers["record-index"]
