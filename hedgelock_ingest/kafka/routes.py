"""Routes: records that are sent to further topics too, as copies with a separate record index."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Final

import msgspec

from hedgelock_ingest.models.topics import CONTRACTS, Topic, TopicContract
from hedgelock_ingest.settings import Settings
from hedgelock_ingest.translate.record import Record

FIRST_INDEX_OF_COPIES: Final = {
    Topic.MARKET_DATA: 1_000_000,
    Topic.MARKET_TRADES: 2_000_000,
    Topic.MARKET_ORDER_BOOKS: 3_000_000,
    Topic.MARKET_LIQUIDATIONS: 4_000_000,
    Topic.ACCOUNT_UPDATES: 5_000_000,
    Topic.POSITION_CHANGES: 6_000_000,
    Topic.ORDER_UPDATES: 7_000_000,
    Topic.EXECUTIONS: 8_000_000,
    Topic.ACCOUNT_RAW: 9_000_000,
    Topic.INGEST_GAPS: 10_000_000,
    Topic.INGEST_DEAD_LETTERS: 11_000_000,
}
"""
Record index of the first copy of a frame, by the copied record's own topic.

A frame's records are numbered within each topic. In a further topic, copies of several types meet each other and that
topic's own records, and a name must be unique there. It depends on nothing but the record, so that no change of the
routes renames a record that has arrived. A number in this table is never changed and never used again.
"""


def copy_of(record: Record) -> Record:
    """Return the copy of a record for a further topic: the same key, value and trace under another record index."""
    return msgspec.structs.replace(record, number=FIRST_INDEX_OF_COPIES[record.topic] + record.number)


def addressed[Target](
    records: Sequence[Record], home: Mapping[Topic, Target], further: Mapping[Topic, Sequence[Target]]
) -> list[tuple[Record, Target]]:
    """
    Pair each record with its topic, and each copy with a further topic.

    The copies of a frame follow its records, by record index: the names in a partition only rise.

    Args:
        records: Those of a frame are next to each other.
        home: The target of each topic.
        further: The targets of copies, by the record's own topic; topics without a route may be absent.
    """
    if not further:
        return [(record, home[record.topic]) for record in records]
    found: list[tuple[Record, Target]] = []
    copies: list[tuple[Record, Target]] = []
    position = None
    for record in records:
        if record.position != position:
            position = record.position
            found += sorted(copies, key=_index)
            copies.clear()
        found.append((record, home[record.topic]))
        if targets := further.get(record.topic):
            copy = copy_of(record)
            copies += [(copy, target) for target in targets]
    return found + sorted(copies, key=_index)


def _index(addressed_copy: tuple[Record, object]) -> int:
    return addressed_copy[0].number


def written_topics(settings: Settings) -> dict[str, Topic | None]:
    """Return the topics that are written, by Kafka's names: ours, then those that only have copies, which are None."""
    names: dict[str, Topic | None] = {getattr(settings, topic.setting): topic for topic in Topic}
    for further in settings.further_topics.values():
        for name in further:
            names.setdefault(name, None)
    return names


def contract_of(settings: Settings, name: str) -> TopicContract:
    """
    Return the contract of a written topic.

    A topic that only has copies keeps them as long as the topic of any of its types, and is not compacted.
    """
    topic = written_topics(settings)[name]
    if topic is not None:
        return CONTRACTS[topic]
    copied = [CONTRACTS[each] for each, further in settings.further_topics.items() if name in further]
    return replace(max(copied, key=lambda contract: contract.retention_ms), cleanup="delete")


def types_in(settings: Settings, topics: Collection[Topic], *, with_further: bool) -> dict[str, set[str]]:
    """Return the message types of these topics by Kafka's names of the topics, own and further ones, that hold them."""
    types: dict[str, set[str]] = {}
    for topic in topics:
        further = settings.further_topics.get(topic, ()) if with_further else ()
        for name in (getattr(settings, topic.setting), *further):
            types.setdefault(name, set()).add(CONTRACTS[topic].message.__name__)
    return types
