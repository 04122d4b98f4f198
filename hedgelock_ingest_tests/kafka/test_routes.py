"""Routes: copies of records in further topics."""

import itertools
from collections import defaultdict
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgelock_ingest.kafka.routes import (
    FIRST_INDEX_OF_COPIES,
    addressed,
    contract_of,
    copy_of,
    types_in,
    written_topics,
)
from hedgelock_ingest.models.topics import CONTRACTS, Topic
from hedgelock_ingest.settings import Settings
from hedgelock_ingest.translate.record import Record
from hedgelock_ingest_tests.kafka.clusters import KafkaUnderTest, publisher_of

KEY = b"desk:linear:BTCUSDT"
ROUTES = ("OrderUpdate=account_raw", "Execution=account_raw", "Execution=desk.fills")


def a_record(topic: Topic, position: int, number: int = 0) -> Record:
    """Build a record of one fixed key; its value names it."""
    value = f"{topic} {position}/{number}".encode()
    return Record(topic, KEY, value, position, number, str(UUID(int=position)), 1, 1_000_000)


def numbered(kinds: list[list[Topic]]) -> list[Record]:
    """Build the records of frames: for each the topics of its records, numbered as translation does."""
    records = []
    for position, topics in enumerate(kinds, 1):
        numbers: defaultdict[Topic, int] = defaultdict(int)
        for topic in topics:
            records.append(a_record(topic, position, numbers[topic]))
            numbers[topic] += 1
    return records


def targets_of(settings: Settings) -> tuple[dict[Topic, str], dict[Topic, tuple[str, ...]]]:
    """Return Kafka's names of each topic's own topic and of its further ones."""
    return {topic: settings.topic(topic) for topic in Topic}, settings.further_topics


def test_each_topic_has_indices_of_copies() -> None:
    """They are a part of names in Kafka: with an index that two topics share, two records would have one name."""
    assert set(FIRST_INDEX_OF_COPIES) == set(Topic)
    firsts = [0, *FIRST_INDEX_OF_COPIES.values()]
    assert all(later - earlier >= 1_000_000 for earlier, later in itertools.pairwise(firsts))


def test_without_routes_each_record_goes_to_its_topic() -> None:
    """This is the usual case."""
    records = numbered([[Topic.ORDER_UPDATES, Topic.EXECUTIONS], [Topic.ACCOUNT_RAW]])
    home, further = targets_of(Settings())
    assert addressed(records, home, further) == [
        (records[0], "order-updates"),
        (records[1], "executions"),
        (records[2], "account_raw"),
    ]


def test_copies_go_to_every_further_topic() -> None:
    """Key, value and trace are those of the record, so that consumers of both topics agree."""
    record = a_record(Topic.EXECUTIONS, 5, 2)
    home, further = targets_of(Settings(kafka_routes=ROUTES))
    found = addressed([record], home, further)
    assert [target for _, target in found] == ["executions", "account_raw", "desk.fills"]
    assert found[0][0] is record
    assert found[1][0] == found[2][0] == copy_of(record)
    assert (copy_of(record).number, copy_of(record).key, copy_of(record).value) == (8_000_002, KEY, record.value)


@given(st.lists(st.lists(st.sampled_from(Topic), max_size=8), max_size=8), st.data())
def test_names_rise_in_each_topic_whatever_the_routes(kinds: list[list[Topic]], data: st.DataObject) -> None:
    """Once: a name is unique in its topic. In order: a topic has each type's records as translation made them."""
    records = numbered(kinds)
    names = st.sampled_from(["a", "b", *Topic])
    further = data.draw(st.dictionaries(st.sampled_from(Topic), st.lists(names, unique=True, max_size=3)))
    further = {topic: [name for name in found if name != topic] for topic, found in further.items()}
    by_target: defaultdict[str, list[Record]] = defaultdict(list)
    for record, target in addressed(records, {topic: str(topic) for topic in Topic}, further):
        by_target[target].append(record)

    for target, found in by_target.items():
        of_types = [(record.topic, record.position, record.number % 1_000_000) for record in found]
        for topic in {record.topic for record in found}:
            expected = [each for each in of_types if each[0] is topic]
            assert expected == [(topic, each.position, each.number) for each in records if each.topic is topic]
        if target in ("a", "b"):
            assert all(record.number >= 1_000_000 for record in found)
        # Records of one frame keep translation's order within a topic; copies follow them by index.
        assert len({(record.position, record.number) for record in found}) == len(found)
        assert [record.position for record in found] == sorted(record.position for record in found)


def test_further_topics_are_written_topics() -> None:
    """They are created, read back at a start, checked and listed like ours."""
    settings = Settings(kafka_routes=ROUTES, kafka_topic_account_raw="desk.account")
    written = written_topics(settings)
    assert written["desk.account"] is Topic.ACCOUNT_RAW
    assert written["desk.fills"] is None
    assert len(written) == len(Topic) + 1


def test_created_further_topic_keeps_copies_as_long_as_their_own_topics() -> None:
    """Compaction would leave the last record of each key."""
    settings = Settings(kafka_routes=("Trade=all", "AccountUpdate=all"))
    contract = contract_of(settings, "all")
    assert (contract.cleanup, contract.retention_ms) == ("delete", CONTRACTS[Topic.ACCOUNT_UPDATES].retention_ms)
    assert contract_of(settings, "executions") == CONTRACTS[Topic.EXECUTIONS]


def test_readers_of_a_topic_select_its_type() -> None:
    """Readers of a topic leave out copies of other types."""
    settings = Settings(kafka_routes=ROUTES)
    assert types_in(settings, [Topic.ACCOUNT_RAW], with_further=False) == {"account_raw": {"AccountRaw"}}
    assert types_in(settings, [Topic.EXECUTIONS, Topic.ORDER_UPDATES], with_further=True) == {
        "executions": {"Execution"},
        "order-updates": {"OrderUpdate"},
        "account_raw": {"OrderUpdate", "Execution"},
        "desk.fills": {"Execution"},
    }


def routed(kafka_under_test: KafkaUnderTest) -> Settings:
    """Send orders and executions to `account_raw` and to a topic of another program; return the settings."""
    raw = kafka_under_test.settings.topic(Topic.ACCOUNT_RAW)
    routes = tuple(f"{kind}={name}" for kind in ("OrderUpdate", "Execution") for name in (raw, f"{raw}-other"))
    kafka_under_test.settings = kafka_under_test.settings.model_copy(update={"kafka_routes": routes})
    return kafka_under_test.settings


async def values_in(kafka_under_test: KafkaUnderTest, topic: str) -> list[str]:
    """Return the values of a topic; all records here have one key, and so one partition."""
    return [(record.value or b"").decode() for record in await kafka_under_test.records(topic)]


FRAMES = [[Topic.ORDER_UPDATES, Topic.EXECUTIONS, Topic.ORDER_UPDATES, Topic.ACCOUNT_RAW] for _ in range(20)]
IN_RAW = [
    f"{topic} {position}/{number}"
    for position in range(1, 21)
    for topic, number in (
        (Topic.ACCOUNT_RAW, 0),
        (Topic.ORDER_UPDATES, 0),
        (Topic.ORDER_UPDATES, 1),
        (Topic.EXECUTIONS, 0),
    )
]
IN_OTHER = [each for each in IN_RAW if not each.startswith("account_raw")]


async def test_copies_are_published_once_and_in_order_over_a_restart(kafka_under_test: KafkaUnderTest) -> None:
    """A start finds the copies of the saved offsets' frames in the further topics, and sends the others."""
    settings = routed(kafka_under_test)
    raw, records = settings.topic(Topic.ACCOUNT_RAW), numbered(FRAMES)
    publisher = publisher_of(kafka_under_test)
    try:
        await publisher.open(None, settle=False)
        await publisher.publish([record for record in records if record.position <= 5])
        saved = publisher.offsets_at(5)
        await publisher.publish([record for record in records if 5 < record.position <= 12])
        await publisher.open(saved, settle=True)
        await publisher.publish([record for record in records if record.position > 5])
    finally:
        await publisher.close()
    assert {raw, f"{raw}-other"} <= saved.keys()
    assert await values_in(kafka_under_test, raw) == IN_RAW
    assert await values_in(kafka_under_test, f"{raw}-other") == [
        each for each in IN_RAW if not each.startswith("account_raw")
    ]
    assert len(await values_in(kafka_under_test, settings.topic(Topic.EXECUTIONS))) == len(FRAMES)


@pytest.mark.parametrize("is_known", [True, False])
async def test_records_that_arrived_without_their_copies_are_not_doubled(
    kafka_under_test: KafkaUnderTest, is_known: bool
) -> None:
    """A new route, or a kill between two topics: only the copies are missing."""
    plain, records = kafka_under_test.settings, numbered(FRAMES)
    publisher = publisher_of(kafka_under_test)
    try:
        await publisher.open(None, settle=False)
        saved = publisher.offsets_at(0) if is_known else {}
        await publisher.publish(records)
    finally:
        await publisher.close()
    raw = routed(kafka_under_test).topic(Topic.ACCOUNT_RAW)
    publisher = publisher_of(kafka_under_test)
    try:
        for _ in range(2):
            await publisher.open(saved, settle=True)
            await publisher.publish(records)
    finally:
        await publisher.close()
    assert sorted(await values_in(kafka_under_test, raw)) == sorted(IN_RAW)
    assert await values_in(kafka_under_test, f"{raw}-other") == [
        each for each in IN_RAW if not each.startswith("account_raw")
    ]
    for topic in (Topic.ORDER_UPDATES, Topic.EXECUTIONS):
        expected = [record.value.decode() for record in records if record.topic is topic]
        assert await values_in(kafka_under_test, plain.topic(topic)) == expected


async def test_noted_record_is_sent_to_the_other_topics_alone(kafka_under_test: KafkaUnderTest) -> None:
    """A backfill finds an event in one of its topics, under the name that an earlier one gave it."""
    settings = routed(kafka_under_test)
    raw, record = settings.topic(Topic.ACCOUNT_RAW), a_record(Topic.EXECUTIONS, 1)
    publisher = publisher_of(kafka_under_test)
    try:
        await publisher.open(None, settle=False)
        publisher.note_arrived(record, settings.topic(Topic.EXECUTIONS))
        publisher.note_arrived(record, raw)
        await publisher.publish([record])
    finally:
        await publisher.close()
    assert (
        await values_in(kafka_under_test, settings.topic(Topic.EXECUTIONS))
        == await values_in(kafka_under_test, raw)
        == []
    )
    assert await values_in(kafka_under_test, f"{raw}-other") == [record.value.decode()]
