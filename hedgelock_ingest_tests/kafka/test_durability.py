"""Warnings about topics whose acknowledged records one broker may lose."""

from typing import Any

import pytest

from hedgelock_ingest.kafka.durability import durability_warnings
from hedgelock_ingest.kafka.topic_reports import TopicReport
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.settings import Settings

REMOTE = "broker-1.example:9092,broker-2.example:9092"


def a_report(name: str = "executions", **fields: Any) -> TopicReport:
    """Build a report of an existing topic that is safe."""
    return TopicReport(Topic.EXECUTIONS, name, **{"exists": True, "replication": 3, "min_insync_replicas": 2, **fields})


def warnings_of(*reports: TopicReport, servers: str = REMOTE) -> list[str]:
    """Return the warnings about topics of a Kafka at these servers."""
    return durability_warnings(reports, Settings(kafka_bootstrap_servers=servers))


def test_three_replicas_of_which_two_acknowledge_are_safe() -> None:
    """One broker may fail without a loss and without a pause."""
    assert warnings_of(a_report()) == []


def test_each_lack_is_one_sentence_that_names_its_topics() -> None:
    """With one copy, `acks=all` means that copy; eleven warnings would hide what to do."""
    found = warnings_of(
        a_report("one", replication=1, min_insync_replicas=1),
        a_report("two", replication=2),
        a_report("three", min_insync_replicas=1),
    )

    assert len(found) == 2
    assert found[0].startswith("fewer than 3 replicas: one (1), two (2); ")
    assert "KAFKA_TOPIC_REPLICATION=3" in found[0]
    assert found[1].startswith("min.insync.replicas below 2: one (1), three (1); ")
    assert "KAFKA_TOPIC_MIN_INSYNC_REPLICAS=2" in found[1]


def test_unknown_values_cause_no_warning() -> None:
    """A missing topic has no replicas yet; some brokers do not report min.insync.replicas."""
    assert warnings_of(TopicReport(Topic.EXECUTIONS, "executions", exists=False)) == []
    assert warnings_of(a_report(min_insync_replicas=0)) == []


@pytest.mark.parametrize(
    ("servers", "is_for_trials"),
    [
        ("localhost:9092", True),
        ("127.0.0.1:9092,[::1]:9093", True),
        ("127.3.2.1:9092", True),
        ("localhost:9092,broker.example:9092", False),
        ("10.0.0.5:9092", False),
        ("[2001:db8::1]:9092", False),
        ("localhost.example:9092", False),
    ],
)
def test_a_broker_on_this_machine_is_for_trials(servers: str, is_for_trials: bool) -> None:
    """A single broker holds one replica of everything, which is intended."""
    found = warnings_of(a_report(replication=1), servers=servers)
    assert (found == []) == is_for_trials
