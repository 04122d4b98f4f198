"""Reports of topics: what is not known is not invented, and what refuses our records is named."""

import pytest

from hedgelock_ingest.errors import KafkaUnavailable
from hedgelock_ingest.kafka.topic_metadata import FoundTopic
from hedgelock_ingest.kafka.topic_reports import HELPFUL_OPERATIONS, TopicReport, denials, topic_report
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.settings import Settings

DAY_MS = 86_400_000
ALL = frozenset(["Read", "Write", "Create", "Describe", "DescribeConfigs"])
SOUND = {
    "cleanup.policy": "delete",
    "retention.ms": str(7 * DAY_MS),
    "max.message.bytes": "1048588",
    "min.insync.replicas": "1",
    "message.timestamp.type": "CreateTime",
    "message.timestamp.before.max.ms": str(2**63 - 1),
    "message.timestamp.after.max.ms": "3600000",
}


def a_report(
    configs: dict[str, str] | None = SOUND,
    *,
    error_code: int = 0,
    permitted: frozenset[str] | None = ALL,
    leaderless: int = 0,
) -> TopicReport:
    """Report a topic of one replica that is otherwise sound."""
    found = FoundTopic(error_code, 6, leaderless, 1, permitted)
    return topic_report(Settings(), Topic.MARKET_TRADES, "market-trades", found, configs)


def test_sound_topic_has_no_difference() -> None:
    """What we create ourselves."""
    assert a_report().differences == ()
    assert a_report(permitted=None).denied == ()


def test_partitions_without_a_leader_are_reported() -> None:
    """Nothing can be read back from them, or written to them, until their brokers are back."""
    report = a_report(leaderless=2)
    assert report.differences == ("2 of 6 partitions have no leader: their brokers are down",)
    assert (report.exists, report.is_readable) == (True, False)


def test_denied_configuration_is_unknown_and_assumed() -> None:
    """A user who may write need not be one who may see the configuration."""
    report = a_report(None, permitted=ALL - {"DescribeConfigs"})
    assert (report.cleanup, report.retention_ms, report.max_message_bytes) == (None, None, None)
    assert (report.exists, report.partitions, report.differences) == (True, 6, ())
    assert report.assumed_max_message_bytes == 1_048_588
    (sentence,) = denials(Settings(), [report], HELPFUL_OPERATIONS)
    assert "User:ANONYMOUS DescribeConfigs on the topic market-trades" in sentence


@pytest.mark.parametrize(
    ("topic", "cleanup", "is_compacted"),
    [
        (Topic.ACCOUNT_UPDATES, "compact,delete", True),
        (Topic.ACCOUNT_UPDATES, "delete", False),
        (Topic.ACCOUNT_UPDATES, None, True),
        (Topic.MARKET_TRADES, None, False),
        (Topic.MARKET_TRADES, "compact", True),
        (None, None, False),
        (None, "compact", True),
    ],
)
def test_unknown_compaction_is_as_we_create_it(topic: Topic | None, cleanup: str | None, is_compacted: bool) -> None:
    """Reading back must know whether records may have been removed between others."""
    assert TopicReport(topic, "any", exists=True, cleanup=cleanup).is_compacted == is_compacted


@pytest.mark.parametrize("left_out", SOUND)
def test_each_configuration_may_be_unknown(left_out: str) -> None:
    """Services with Kafka's protocol report only some."""
    report = a_report({name: value for name, value in SOUND.items() if name != left_out})
    assert (report.exists, report.differences, report.denied) == (True, (), ())


@pytest.mark.parametrize(
    ("configs", "words"),
    [
        ({"message.timestamp.before.max.ms": "10000"}, "set at least 86400000"),
        ({"message.timestamp.difference.max.ms": "3600000"}, "after a longer outage Kafka refuses"),
        ({"message.timestamp.after.max.ms": "1000"}, "set at least 60000"),
        ({"message.timestamp.type": "LogAppendTime"}, "set CreateTime"),
        ({"max.message.bytes": "1000"}, "set at least 1000000"),
        ({"min.insync.replicas": "2"}, "Kafka accepts no record"),
    ],
)
def test_each_configuration_that_refuses_records_is_named(configs: dict[str, str], words: str) -> None:
    """Before it happens at night, after an outage."""
    (sentence,) = a_report(SOUND | configs).differences
    assert words in sentence
    assert next(iter(configs)) in sentence
    assert configs[next(iter(configs))] in sentence


def test_limits_of_time_do_not_hold_for_kafkas_own_time() -> None:
    """With LogAppendTime Kafka looks at no time of ours."""
    configs = {"message.timestamp.type": "LogAppendTime", "message.timestamp.before.max.ms": "1"}
    assert len(a_report(SOUND | configs).differences) == 1


def test_topic_that_may_not_be_seen_is_not_called_missing() -> None:
    """It must not be created, and a reader must not take it for empty."""
    report = a_report(error_code=29, permitted=None)
    assert (report.exists, report.is_missing, report.denied) == (False, False, ("Describe", "Read", "Write"))
    assert a_report(error_code=3).is_missing
    assert a_report(error_code=3, permitted=frozenset(["Describe"])).denied == ("Create", "Read", "Write")


def test_other_answers_about_a_topic_are_tried_again() -> None:
    """A topic without a leader yet is not missing."""
    with pytest.raises(KafkaUnavailable, match="LeaderNotAvailableError for the topic market-trades"):
        a_report(error_code=5)
