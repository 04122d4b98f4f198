"""Prometheus metrics, read from the statistics when they are asked for, so that no frame pays for them."""

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from hedgelock_ingest.protocol.breaker import BreakerState
from hedgelock_ingest.status import Latency, Statistics

type Family = CounterMetricFamily | GaugeMetricFamily


class StatisticsCollector(Collector):
    """Turns one reading of the statistics into metric families; labels come from small fixed sets."""

    def __init__(self, read: Callable[[], Statistics]) -> None:
        """Collect from `read`."""
        self._read = read

    def collect(self) -> Iterator[Family]:
        """Give all families."""
        statistics = self._read()
        yield from _counters(statistics)
        yield from _gauges(statistics)
        yield _latency(
            "receive_to_acknowledged", "from read to acknowledged by Kafka", statistics.receive_to_acknowledged
        )
        yield _latency(
            "exchange_to_acknowledged",
            "from Bybit's clock to acknowledged by Kafka",
            statistics.exchange_to_acknowledged,
        )


def _counters(statistics: Statistics) -> Iterator[CounterMetricFamily]:
    yield _counter("frames_received", "Frames read from all lines.", statistics.frames_received)
    yield _counter("frames_acknowledged", "Frames whose records Kafka holds.", statistics.frames_acknowledged)
    yield _counter("gaps", "Holes recorded.", statistics.gaps)
    yield _counter("dead_letters", "Frames that could not be understood.", statistics.dead_letters)
    yield _counter("records_refused", "Records that Kafka will never take.", statistics.records_refused)
    yield _counter("pauses", "Times the lines were closed for the journal.", statistics.pauses)
    yield _counter("breaker_openings", "Times Kafka's circuit breaker opened.", statistics.kafka.openings)
    dropped = {"copy": statistics.copies_dropped, "late": statistics.late_dropped, **statistics.dropped}
    yield _labelled("frames_dropped", "Frames that brought nothing new.", "reason", dropped)
    yield _labelled("records", "Records made.", "topic", statistics.records)
    by_line = {line.name: line.reconnects for line in statistics.lines}
    yield _labelled("line_reconnects", "Connections that were lost.", "line", by_line)


def _gauges(statistics: Statistics) -> Iterator[GaugeMetricFamily]:
    journal = statistics.journal
    yield _gauge("lag_frames", "Frames journalled and not yet acknowledged.", journal.lag_frames)
    yield _gauge("journal_backlog_bytes", "Bytes of frames not yet acknowledged.", journal.backlog_bytes)
    yield _gauge("journal_bound_bytes", "Where the lines are closed.", journal.bound_bytes)
    yield _gauge("feeds_without_line", "Feeds that no live line carries.", len(statistics.feeds_without_line))
    is_closed = statistics.kafka.state is BreakerState.CLOSED
    yield _gauge("kafka_up", "1 while Kafka's circuit breaker is closed.", int(is_closed))
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
