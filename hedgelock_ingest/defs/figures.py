"""What the stream says of itself once a minute, as metadata that Dagster plots."""

from collections.abc import Iterator, Mapping, Sequence

import dagster as dg

from hedgelock_ingest.defs.lineage import STEADY, topic_key
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.status import Statistics

type Figures = Mapping[str, float | int | str]


def materializations(
    topics: Sequence[Topic], now: Statistics, before: Statistics | None
) -> Iterator[dg.AssetMaterialization]:
    """Make one event a topic; a steady topic that got nothing since the last time has none."""
    earlier = before.records if before else {}
    elapsed_s = now.uptime_s - (before.uptime_s if before else 0.0)
    for topic in topics:
        records = now.records.get(topic, 0) - earlier.get(topic, 0)
        if records or topic not in STEADY:
            figures = _figures(topic, records, elapsed_s, now)
            yield dg.AssetMaterialization(
                topic_key(topic), description=f"{records} records in {elapsed_s:.0f} s", metadata=figures
            )


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
        "Kafka": now.kafka.reason or str(now.kafka.state),
        "shard": now.shard,
    }
