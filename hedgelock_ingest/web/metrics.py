"""Prometheus metrics, computed from the statistics at each scrape, so that they cost nothing per frame."""

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from hedgelock_ingest.bybit.key_gate import KeyState
from hedgelock_ingest.protocol.circuit_breaker import BreakerState
from hedgelock_ingest.status import Latency, Statistics

type Family = CounterMetricFamily | GaugeMetricFamily


class StatisticsCollector(Collector):
    """Converts the statistics into metric families; labels come from small fixed sets."""

    def __init__(self, read: Callable[[], Statistics]) -> None:
        """Collect from the statistics that `read` returns."""
        self._read = read

    def collect(self) -> Iterator[Family]:
        """Yield all metric families."""
        statistics = self._read()
        yield from _counters(statistics)
        yield from _gauges(statistics)
        yield _latency(
            "receive_to_acknowledged",
            "from the read to the acknowledgement by Kafka",
            statistics.receive_to_acknowledged,
        )
        yield _latency(
            "exchange_to_acknowledged",
            "from Bybit's timestamp to the acknowledgement by Kafka",
            statistics.exchange_to_acknowledged,
        )


def _counters(statistics: Statistics) -> Iterator[CounterMetricFamily]:
    yield _counter("frames_received", "Frames read from all lines.", statistics.frames_received)
    yield _counter(
        "frames_acknowledged", "Frames whose records Kafka has acknowledged.", statistics.frames_acknowledged
    )
    yield _counter("gaps", "Gaps recorded.", statistics.gaps)
    yield _counter("dead_letters", "Frames that could not be decoded or translated.", statistics.dead_letters)
    yield _counter("records_refused", "Records that Kafka refuses permanently.", statistics.records_refused)
    yield _counter(
        "pauses", "Times the lines were closed because the journal was full, slow or failing.", statistics.pauses
    )
    yield _counter("breaker_openings", "Times Kafka's circuit breaker opened.", statistics.kafka.openings)
    yield _counter("rest_requests", "Requests to Bybit's REST API.", statistics.rest.requests)
    yield _counter("rest_failures", "Requests to Bybit's REST API that failed after retries.", statistics.rest.failures)
    yield _counter("rest_breaker_openings", "Times the REST circuit breaker opened.", statistics.rest.openings)
    yield _counter("healings", "REST answers that filled gaps of a feed.", statistics.healing.answers)
    yield _counter("healings_given_up", "Feeds whose gaps REST could not fill.", statistics.healing.given_up)
    yield _counter("stand_ins", "REST answers in place of frames of feeds without a line.", statistics.stand_in.answers)
    polls = statistics.account.polls if statistics.account else {}
    yield _labelled("polls", "Polls answered.", "part", {part: poll.answers for part, poll in polls.items()})
    yield _labelled(
        "poll_failures", "Polls that failed.", "part", {part: poll.failures for part, poll in polls.items()}
    )
    dropped = {"copy": statistics.copies_dropped, "late": statistics.late_dropped, **statistics.dropped}
    yield _labelled("frames_dropped", "Frames dropped, by reason.", "reason", dropped)
    yield _labelled("records", "Records that Kafka has taken.", "topic", statistics.records)
    by_line = {line.name: line.reconnects for line in statistics.lines}
    yield _labelled("line_reconnects", "Connections lost.", "line", by_line)


def _gauges(statistics: Statistics) -> Iterator[GaugeMetricFamily]:
    journal = statistics.journal
    yield _gauge("lag_frames", "Frames journalled and not yet acknowledged.", journal.lag_frames)
    yield _gauge("journal_backlog_bytes", "Bytes of frames not yet acknowledged.", journal.backlog_bytes)
    yield _gauge("journal_bound_bytes", "Backlog at which the lines are closed.", journal.bound_bytes)
    yield _gauge("feeds_without_line", "Feeds that no live line carries.", len(statistics.feeds_without_line))
    yield _gauge("feeds_refused", "Feeds that Bybit refuses, while it serves others.", len(statistics.feeds_refused))
    is_closed = statistics.kafka.state is BreakerState.CLOSED
    yield _gauge("kafka_up", "1 while Kafka's circuit breaker is closed.", int(is_closed))
    yield _gauge("blocked_topics", "Topics that accept nothing for now.", len(statistics.kafka.blocked_topics))
    yield _gauge(
        "rest_up", "1 while the REST circuit breaker is not open.", int(statistics.rest.state is not BreakerState.OPEN)
    )
    if statistics.account is not None:
        yield _gauge("key_accepted", "1 while the API key is accepted.", int(statistics.key.state is KeyState.ACCEPTED))
        yield _gauge(
            "account_parts_missing", "Parts of the account without any data yet.", len(statistics.account.missing_parts)
        )
    if statistics.key.expires_at is not None:
        expires_s = statistics.key.expires_at.timestamp()
        yield _gauge("key_expires_timestamp_seconds", "When the API key expires, Unix time.", expires_s)
    up = GaugeMetricFamily("hedgelock_line_up", "1 while the line is connected.", labels=["line"])
    for line in statistics.lines:
        up.add_metric([line.name], int(line.state == "connected"))
    yield up


def _counter(name: str, about: str, count: int) -> CounterMetricFamily:
    return CounterMetricFamily(f"hedgelock_{name}", about, value=count)


def _labelled(name: str, about: str, label: str, counts: dict[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(f"hedgelock_{name}", about, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family


def _gauge(name: str, about: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"hedgelock_{name}", about, value=value)


def _latency(name: str, about: str, latency: Latency) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"hedgelock_{name}_seconds", f"Latency {about}, last minute.", labels=["quantile"])
    for percentile, milliseconds in latency.percentiles_ms.items():
        if milliseconds is not None:
            family.add_metric([f"{float(percentile[1:]) / 100:g}"], milliseconds / 1000)
    return family
