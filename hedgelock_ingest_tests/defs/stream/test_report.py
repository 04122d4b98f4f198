"""Report of a run: one line that states whether data flows, and what keeps it from flowing."""

from typing import Any

from hedgelock_ingest.defs.stream.report import condition, due, materialization
from hedgelock_ingest.defs.topics.assets import IDLE_REPORT_EVERY_S
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.status import Statistics

_LATENCY = {"percentiles_ms": {"p50": 4.1, "p99": 42.5}, "count": 900}
_LINE = {"channels": 4, "generation": 1, "reconnects": 0, "rotations": 0, "frames": 9, "last_cause": None}


def statistics(*, waiting: int = 0, **fields: Any) -> Statistics:
    """Build the statistics of a healthy run, a minute after its start."""
    connected = {"state": "closed", "reason": None, "openings": 0}
    usual = {
        "shard": "main",
        "started_at": "2026-11-21T11:00:00Z",
        "uptime_s": 60.0,
        "frames_received": 900,
        "frames_acknowledged": 900,
        "frames_per_s": 15.0,
        "records": {"market-data": 600},
        "receive_to_acknowledged": _LATENCY,
        "exchange_to_acknowledged": _LATENCY,
        "gaps": 2,
        "copies_dropped": 0,
        "late_dropped": 0,
        "dropped": {},
        "dead_letters": 0,
        "records_refused": 0,
        "reconnects": 1,
        "feeds_without_line": [],
        "pauses": 0,
        "journal": {
            "durable_position": 900,
            "acknowledged_position": 900,
            "lag_frames": waiting,
            "backlog_bytes": 0,
            "bound_bytes": 1 << 30,
            "trouble": None,
        },
        "kafka": {**connected, "producers_opened": 1, "blocked_topics": {}},
        "rest": {**connected, "requests": 0, "failures": 0, "clock_ahead_s": None},
        "healing": {"answers": 0, "failures": 0, "given_up": 0},
        "stand_in": {"answers": 0, "failures": 0},
        "key": {"state": "missing", "reason": None, "warnings": [], "expires_at": None},
        "account": None,
        "lines": [
            {"name": "linear-1", "state": "connected", "last_data_at": None, **_LINE},
            {"name": "linear-2", "state": "waiting", "last_data_at": None, **_LINE},
        ],
    }
    return Statistics.model_validate(usual | fields)


AWAY = {"state": "open", "reason": "no answer for 3 s", "openings": 1, "producers_opened": 1, "blocked_topics": {}}


def test_line_of_a_healthy_run_has_rate_latency_and_losses() -> None:
    """One line answers an operator's first questions."""
    assert condition(statistics(waiting=3)) == (
        "Data flows. 15 frames per s, in Kafka after 42.5 ms (p99), 3 frames in the backlog, 1 of 2 lines live. "
        "Since this run began: 2 gaps, 0 dead letters, 1 reconnects"
    )


def test_what_keeps_data_from_flowing_is_named_first() -> None:
    """An operator sees trouble without comparing figures."""
    line = condition(statistics(kafka=AWAY, feeds_without_line=[f"linear:tickers.C{number}" for number in range(5)]))
    assert line.startswith(
        "TROUBLE: Kafka is away, frames go to the journal: no answer for 3 s; "
        "no live line for linear:tickers.C0, linear:tickers.C1, linear:tickers.C2 and 2 more. "
    )


def test_topic_that_accepts_nothing_is_named() -> None:
    """The others go on, so that nothing else shows it."""
    kafka = {"state": "closed", "reason": None, "openings": 0, "producers_opened": 1}
    line = condition(statistics(kafka=kafka | {"blocked_topics": {"market-trades": "POLICY"}}))
    assert line.startswith("TROUBLE: the topic market-trades accepts nothing: POLICY. ")


def test_trouble_stands_in_each_topic_s_event() -> None:
    """The trouble is visible on the page of each topic."""
    event = materialization(Topic.MARKET_DATA, statistics(kafka=AWAY), None)
    assert event.description == "600 records in 60 s; Kafka is away, frames go to the journal: no answer for 3 s"
    assert event.metadata["Kafka"].value == "away: no answer for 3 s"


def test_topic_with_records_is_reported_each_time_with_its_new_records() -> None:
    """The figures of each minute are plotted; the total of the run is a separate figure."""
    before, now = statistics(), statistics(uptime_s=120.0, records={"market-data": 690})
    assert due([Topic.MARKET_DATA, Topic.MARKET_TRADES], now, {Topic.MARKET_TRADES: before}) == [Topic.MARKET_DATA]
    event = materialization(Topic.MARKET_DATA, now, before)
    assert [event.metadata[name].value for name in ("records", "records per s", "records of this run")] == [
        90,
        1.5,
        690,
    ]


def test_idle_topic_is_reported_at_intervals_with_0_records() -> None:
    """An empty event every minute would be most of Dagster's storage."""
    before = statistics()
    early, late = statistics(uptime_s=60.0 + IDLE_REPORT_EVERY_S - 1), statistics(uptime_s=60.0 + IDLE_REPORT_EVERY_S)
    assert due([Topic.EXECUTIONS], before, {}) == [Topic.EXECUTIONS]
    assert due([Topic.EXECUTIONS], early, {Topic.EXECUTIONS: before}) == []
    assert due([Topic.EXECUTIONS], late, {Topic.EXECUTIONS: before}) == [Topic.EXECUTIONS]
    assert materialization(Topic.EXECUTIONS, late, before).metadata["records"].value == 0


def test_steady_topic_has_no_event_without_records() -> None:
    """The age of its last event shows that nothing flows."""
    assert due([Topic.MARKET_DATA], statistics(records={}), {}) == []
    assert due([Topic.MARKET_DATA], statistics(uptime_s=9_999.0), {Topic.MARKET_DATA: statistics()}) == []
