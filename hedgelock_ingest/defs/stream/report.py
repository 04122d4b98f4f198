"""Reports of the stream, once a minute: metadata that Dagster plots, and one line of text."""

from collections.abc import Mapping, Sequence

import dagster as dg

from hedgelock_ingest.defs.topics.assets import IDLE_REPORT_EVERY_S, topic_key
from hedgelock_ingest.models.topics import STEADY, Topic
from hedgelock_ingest.protocol.circuit_breaker import BreakerState
from hedgelock_ingest.status import Statistics

type StreamFigures = Mapping[str, float | int | str]

_MAX_NAMED_FEEDS = 3


def due(topics: Sequence[Topic], now: Statistics, reported: Mapping[Topic, Statistics]) -> list[Topic]:
    """
    Return the topics that are due: those with new records, and idle ones every `IDLE_REPORT_EVERY_S`.

    A topic that is written all the time is not reported without records, so that its freshness fails. Each event takes
    7 kB in Dagster's storage, and most topics of an account are idle most of the time.

    Args:
        topics: All topics that the shard writes.
        now: The shard's present statistics.
        reported: The statistics at the last report of each topic.
    """
    return [topic for topic in topics if _is_due(topic, now, reported.get(topic))]


def materialization(topic: Topic, now: Statistics, before: Statistics | None) -> dg.AssetMaterialization:
    """Build the event of a topic; `before` are the statistics at its last report."""
    records, elapsed_s = _since(topic, now, before)
    description = "; ".join([f"{records} records in {elapsed_s:.0f} s", *troubles(now)])
    return dg.AssetMaterialization(
        topic_key(topic), description=description, metadata=_figures(topic, records, elapsed_s, now)
    )


def condition(now: Statistics) -> str:
    """Summarise in one line whether data flows, its latency, and what was lost."""
    wrong = troubles(now)
    latency_ms = now.receive_to_acknowledged.percentiles_ms["p99"]
    late = "" if latency_ms is None else f", in Kafka after {latency_ms:g} ms (p99)"
    connected = sum(line.state == "connected" for line in now.lines)
    return (
        f"{'TROUBLE: ' + '; '.join(wrong) if wrong else 'Data flows'}. "
        f"{now.frames_per_s:g} frames per s{late}, {now.journal.lag_frames} frames in the backlog, "
        f"{connected} of {len(now.lines)} lines live. "
        f"Since this run began: {now.gaps} gaps, {now.dead_letters + now.records_refused} dead letters, "
        f"{now.reconnects} reconnects"
    )


def troubles(now: Statistics) -> list[str]:
    """List what keeps data from flowing now."""
    found = []
    if now.kafka.state is not BreakerState.CLOSED:
        found.append(f"Kafka is away, frames go to the journal: {now.kafka.reason}")
    for topic, reason in now.kafka.blocked_topics.items():
        found.append(f"the topic {topic} accepts nothing: {reason}")
    if now.journal.trouble is not None:
        found.append(f"the journal has trouble: {now.journal.trouble}")
    if feeds := now.feeds_without_line:
        more = f" and {len(feeds) - _MAX_NAMED_FEEDS} more" if len(feeds) > _MAX_NAMED_FEEDS else ""
        found.append(f"no live line for {', '.join(feeds[:_MAX_NAMED_FEEDS])}{more}")
    return found


def _is_due(topic: Topic, now: Statistics, before: Statistics | None) -> bool:
    records, elapsed_s = _since(topic, now, before)
    return records > 0 or (topic not in STEADY and (before is None or elapsed_s >= IDLE_REPORT_EVERY_S))


def _since(topic: Topic, now: Statistics, before: Statistics | None) -> tuple[int, float]:
    records = now.records.get(topic, 0) - (before.records.get(topic, 0) if before else 0)
    return records, now.uptime_s - (before.uptime_s if before else 0.0)


def _figures(topic: Topic, records: int, elapsed_s: float, now: Statistics) -> StreamFigures:
    receive, exchange = now.receive_to_acknowledged.percentiles_ms, now.exchange_to_acknowledged.percentiles_ms
    latencies = {
        "latency p50 ms": receive["p50"],
        "latency p99 ms": receive["p99"],
        "latency since Bybit p99 ms": exchange["p99"],
    }
    return {
        "records": records,
        "records per s": round(records / elapsed_s, 2) if elapsed_s > 0 else 0.0,
        "records of this run": now.records.get(topic, 0),
        **{name: value for name, value in latencies.items() if value is not None},
        "lag frames": now.journal.lag_frames,
        "journal backlog bytes": now.journal.backlog_bytes,
        "last position": now.journal.acknowledged_position,
        "gaps": now.gaps,
        "dead letters": now.dead_letters + now.records_refused,
        "reconnects": now.reconnects,
        "Kafka": "connected" if now.kafka.state is BreakerState.CLOSED else f"away: {now.kafka.reason}",
        "shard": now.shard,
    }
