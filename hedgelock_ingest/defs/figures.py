"""What the stream says of itself once a minute: metadata that Dagster plots, and one line in words."""

from collections.abc import Iterator, Mapping, Sequence

import dagster as dg

from hedgelock_ingest.defs.lineage import STEADY, topic_key
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.breaker import BreakerState
from hedgelock_ingest.status import Statistics

type Figures = Mapping[str, float | int | str]

_NAMED = 3


def materializations(
    topics: Sequence[Topic], now: Statistics, before: Statistics | None
) -> Iterator[dg.AssetMaterialization]:
    """Make one event a topic; a steady topic that got nothing since the last time has none."""
    earlier = before.records if before else {}
    elapsed_s = now.uptime_s - (before.uptime_s if before else 0.0)
    for topic in topics:
        records = now.records.get(topic, 0) - earlier.get(topic, 0)
        if records or topic not in STEADY:
            told = "; ".join([f"{records} records in {elapsed_s:.0f} s", *troubles(now)])
            figures = _figures(topic, records, elapsed_s, now)
            yield dg.AssetMaterialization(topic_key(topic), description=told, metadata=figures)


def condition(now: Statistics) -> str:
    """Tell the operator in one line whether data flows, whether it is late, and what was lost."""
    wrong = troubles(now)
    latency_ms = now.receive_to_acknowledged.percentiles_ms["p99"]
    late = "" if latency_ms is None else f", in Kafka after {latency_ms:g} ms (p99)"
    connected = sum(line.state == "connected" for line in now.lines)
    return (
        f"{'TROUBLE: ' + '; '.join(wrong) if wrong else 'Data flows'}. "
        f"{now.frames_per_s:g} frames per s{late}, {now.journal.lag_frames} wait in the journal, "
        f"{connected} of {len(now.lines)} lines live. "
        f"Since this run began: {now.gaps} gaps, {now.dead_letters + now.records_refused} dead letters, "
        f"{now.reconnects} reconnects"
    )


def troubles(now: Statistics) -> list[str]:
    """Name what keeps data from flowing right now."""
    found = []
    if now.kafka.state is not BreakerState.CLOSED:
        found.append(f"Kafka is away, frames go to the journal: {now.kafka.reason}")
    if now.journal.trouble is not None:
        found.append(f"the journal has trouble: {now.journal.trouble}")
    if feeds := now.feeds_without_line:
        more = f" and {len(feeds) - _NAMED} more" if len(feeds) > _NAMED else ""
        found.append(f"no live line for {', '.join(feeds[:_NAMED])}{more}")
    return found


def _figures(topic: Topic, records: int, elapsed_s: float, now: Statistics) -> Figures:
    receive, exchange = now.receive_to_acknowledged.percentiles_ms, now.exchange_to_acknowledged.percentiles_ms
    latencies = {
        "latency p50 ms": receive["p50"],
        "latency p99 ms": receive["p99"],
        "since Bybit p99 ms": exchange["p99"],
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
