"""Check of record headers, keys and partitions against the contract."""

import re

from pydantic import ValidationError

from hedgelock_ingest.models.topics import CONTRACTS, Topic
from hedgelock_ingest_tests.processes.evidence import Evidence, PublishedRecord

HEADERS = {
    "trace-id",
    "traceparent",
    "message-type",
    "exchange-ms",
    "received-ns",
    "journal-id",
    "journal-position",
    "record-index",
}
_TRACE = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
"""A UUID of version 4. Source: RFC 9562, section 5.4."""
_TRACEPARENT = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_TYPES = {topic: contract.message.__name__.encode() for topic, contract in CONTRACTS.items()}
_FULLY_CHECKED = (Topic.INGEST_GAPS, Topic.INGEST_DEAD_LETTERS, Topic.MARKET_LIQUIDATIONS)
_EVERY = 20


def check_headers(evidence: Evidence) -> None:
    """Check the headers, name, value and partition of each record."""
    journals: set[bytes] = set()
    trace_by_position: dict[tuple[bytes, int], str] = {}
    for records in evidence.records.values():
        names: set[tuple[bytes, int, int]] = set()
        partition_by_key: dict[str, int] = {}
        last_by_partition: dict[tuple[bytes, int], tuple[int, int]] = {}
        for record in records:
            if record.headers.keys() != HEADERS:
                evidence.find(f"{record}: headers {sorted(record.headers)}")
                continue
            journal = record.headers["journal-id"]
            journals.add(journal)
            record.position = int(record.headers["journal-position"])
            record.index = int(record.headers["record-index"])
            name = (journal, record.position, record.index)
            if name in names:
                evidence.find(f"{record}: is twice in its topic")
            names.add(name)
            if last_by_partition.get((journal, record.partition), (0, 0)) >= name[1:]:
                evidence.find(f"{record}: comes after a later frame of its partition")
            last_by_partition[journal, record.partition] = (record.position, record.index)
            if partition_by_key.setdefault(record.key, record.partition) != record.partition:
                evidence.find(f"{record}: its key lies in partition {partition_by_key[record.key]} as well")
            trace = record.value["trace_id"]
            if trace_by_position.setdefault((journal, record.position), trace) != trace:
                evidence.find(f"{record}: another trace id than other records of its frame")
            _check_texts(evidence, record)
    if len(journals) > evidence.journals:
        evidence.find(f"records of {len(journals)} journals, expected {evidence.journals}")


def _check_texts(evidence: Evidence, record: PublishedRecord) -> None:
    headers = record.headers
    trace, parent = headers["trace-id"], _TRACEPARENT.fullmatch(headers["traceparent"])
    if _TRACE.fullmatch(trace) is None or trace != record.value["trace_id"].encode():
        evidence.find(f"{record}: trace id {trace!r}, in the value {record.value['trace_id']}")
    if parent is None or parent[1] != trace.replace(b"-", b""):
        evidence.find(f"{record}: traceparent {headers['traceparent']!r}")
    if headers["message-type"] != _TYPES[record.topic]:
        evidence.find(f"{record}: message type {headers['message-type']!r}")
    is_gap = record.topic is Topic.INGEST_GAPS  # recorded when REST has filled it, after any number of restarts
    is_misdated = int(headers["exchange-ms"]) in evidence.wrong_times
    if (
        not (is_gap or is_misdated)
        and abs(int(headers["received-ns"]) // 1_000_000 - int(headers["exchange-ms"])) > 60_000
    ):
        evidence.find(f"{record}: received a minute or more from when it was sent")
    if record.topic in _FULLY_CHECKED or record.position % _EVERY == 0:
        try:
            CONTRACTS[record.topic].message.model_validate(record.value)
        except ValidationError as error:
            evidence.find(f"{record}: {error}")
