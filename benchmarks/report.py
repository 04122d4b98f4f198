"""Report of a benchmark: the table of figures and targets, and the results file."""

import json
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.restart import StartOutcome
from benchmarks.rounds import Contender, RoundOutcome
from hedgelock_ingest.sandbox.kafka.class_path import VERSION as KAFKA_VERSION

_PACKAGES = ("aiokafka", "msgspec", "uvloop", "websockets")
_STYLES = {True: "[green]met[/]", False: "[red]missed[/]", None: "-"}
_MAX_MEMORY_GROWTH = 1.10
"""Allowed growth of resident memory between the tenth second and the last."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; `is_met` is None where there is no target."""

    subject: str
    figure: str
    target: str
    product: str
    bare: str
    is_met: bool | None


@dataclass(slots=True)
class BenchmarkReport:
    """Results of one run."""

    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    machine: dict[str, object] = field(default_factory=lambda: machine_facts())
    outcomes: dict[str, list[RoundOutcome]] = field(default_factory=dict)
    starts: list[StartOutcome] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether every round completed with each frame in Kafka exactly once."""
        rounds: list[RoundOutcome | StartOutcome] = [each for found in self.outcomes.values() for each in found]
        return not self.failures and all(each.is_complete for each in [*rounds, *self.starts])

    def rows(self) -> list[Row]:
        """Compare the figures with the targets; the median of several rounds counts."""
        rows: list[Row] = []
        for subject, outcomes in self.outcomes.items():
            product = [each for each in outcomes if each.contender is Contender.PRODUCT]
            bare = [each for each in outcomes if each.contender is Contender.BARE]
            if product:
                rows += _ROWS[subject.partition(" ")[0]](subject, product, bare)
        return rows + _start_rows(self.starts)

    def show(self) -> None:
        """Print the table."""
        console = Console(width=max(100, Console().width))
        table = Table(title="The product against the bare loop: medians of the rounds, (lowest to highest)")
        for name in ("", "figure", "target", "product", "bare loop", ""):
            table.add_column(name, justify="left" if name in ("", "figure") else "right")
        for row in self.rows():
            table.add_row(row.subject, row.figure, row.target, row.product, row.bare, _STYLES[row.is_met])
        console.print(table)
        console.print(", ".join(f"{name} {fact}" for name, fact in self.machine.items()), style="dim")
        for failure in self.failures:
            console.print(f"failed: {failure}", style="red", markup=False)

    def write(self, path: Path) -> None:
        """Write all results as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**asdict(self), "table": [asdict(row) for row in self.rows()]}, indent=1) + "\n")


def machine_facts() -> dict[str, object]:
    """Return facts about the machine, and its load before the measurement."""
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "kafka": KAFKA_VERSION,
        **{name: version(name) for name in _PACKAGES},
        "load_before": round(os.getloadavg()[0], 2),
        "busy_percent_before": psutil.cpu_percent(interval=1.0),
    }


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(": ")[2]
    return platform.processor() or platform.machine()


def _latency_rows(subject: str, product: Sequence[RoundOutcome], bare: Sequence[RoundOutcome]) -> list[Row]:
    p50, p99 = _median(each.p50_ms for each in product), _median(each.p99_ms for each in product)
    bare_p99 = _median(each.p99_ms for each in bare) if bare else None
    has_target = product[0].lines == 1
    return [
        Row(subject, "p50, ms", "< 3" if has_target else "", _spread(product, "p50_ms"), _spread(bare, "p50_ms"),
            p50 < 3 if has_target else None),
        Row("", "p99, ms", "< 8, ≤ 2 x bare" if has_target else "", _spread(product, "p99_ms"), _spread(bare, "p99_ms"),
            p99 < 8 and (bare_p99 is None or p99 <= 2 * bare_p99) if has_target else None),
        Row("", "p99.9, ms", "", _spread(product, "p999_ms"), _spread(bare, "p999_ms"), None),
        Row("", "max, ms", "", _spread(product, "max_ms"), _spread(bare, "max_ms"), None),
        _complete(product, bare),
        _cpu(product, bare),
    ]  # fmt: skip


def _sustained_rows(subject: str, product: Sequence[RoundOutcome], bare: Sequence[RoundOutcome]) -> list[Row]:
    p99 = _median(each.p99_ms for each in product)
    early, late = zip(*(_resident_mb(each) for each in product), strict=True)
    is_flat = all(after <= before * _MAX_MEMORY_GROWTH for before, after in zip(early, late, strict=True))
    memory = f"{_median(early):.0f} → {_median(late):.0f}"
    bare_memory = [_resident_mb(each) for each in bare]
    return [
        _complete(product, bare, subject),
        Row("", "p50, ms", "", _spread(product, "p50_ms"), _spread(bare, "p50_ms"), None),
        Row("", "p99, ms", "< 20", _spread(product, "p99_ms"), _spread(bare, "p99_ms"), p99 < 20),
        Row("", "max, ms", "", _spread(product, "max_ms"), _spread(bare, "max_ms"), None),
        Row("", "resident MB, 10 s → end", "flat", memory,
            f"{bare_memory[0][0]:.0f} → {bare_memory[0][1]:.0f}" if bare_memory else "", is_flat),
        _cpu(product, bare),
    ]  # fmt: skip


def _ceiling_rows(subject: str, product: Sequence[RoundOutcome], bare: Sequence[RoundOutcome]) -> list[Row]:
    rate = _median(each.rate_per_s for each in product)
    bare_rate = _median(each.rate_per_s for each in bare) if bare else None
    share = None if bare_rate is None else rate / bare_rate
    return [
        Row(subject, "frames/s", "≥ 0.5 x bare", _spread(product, "rate_per_s"), _spread(bare, "rate_per_s"),
            None if share is None else share >= 0.5),
        Row("", "share of bare", "≥ 0.5", "" if share is None else f"{share:.2f}", "", None),
        _complete(product, bare),
        _cpu(product, bare),
    ]  # fmt: skip


_ROWS = {"latency": _latency_rows, "sustained": _sustained_rows, "ceiling": _ceiling_rows}


def _start_rows(starts: Sequence[StartOutcome]) -> list[Row]:
    product = [each for each in starts if each.contender is Contender.PRODUCT]
    bare = [each for each in starts if each.contender is Contender.BARE]
    if not product:
        return []
    backlog = product[0].backlog
    is_complete = all(each.is_complete for each in product)
    slowest = max(each.first_new_record_s for each in product)
    subject = f"start, {backlog.frames:,} journalled, {backlog.unacknowledged:,} not acknowledged"
    return [
        Row(subject, "first record, s", "", _spread(product, "first_record_s"), "", None),
        Row("", "first new record, s", "< 5", _spread(product, "first_new_record_s"),
            _spread(bare, "first_new_record_s"), slowest < 5),
        Row("", "missing or doubled", "0", f"{sum(abs(e.sent - e.received) + abs(e.repeated) for e in product)}", "",
            is_complete),
    ]  # fmt: skip


def _complete(product: Sequence[RoundOutcome], bare: Sequence[RoundOutcome], subject: str = "") -> Row:
    def missing(outcomes: Sequence[RoundOutcome]) -> str:
        sent = sum(each.sent for each in outcomes)
        wrong = sum(each.sent - each.received + abs(each.repeated) + each.unexpected for each in outcomes)
        return f"{wrong} of {sent:,}" if outcomes else ""

    return Row(subject, "missing or doubled", "0", missing(product), missing(bare), all(e.is_complete for e in product))


def _cpu(product: Sequence[RoundOutcome], bare: Sequence[RoundOutcome]) -> Row:
    return Row(
        "", "processor, µs a frame", "", _spread(product, "cpu_us_per_frame"), _spread(bare, "cpu_us_per_frame"), None
    )


def _resident_mb(outcome: RoundOutcome) -> tuple[float, float]:
    early = next((each for each in outcome.samples if each.at_s >= 10), outcome.samples[len(outcome.samples) // 2])
    last = outcome.samples[-2] if len(outcome.samples) > 1 else outcome.samples[-1]
    return early.resident_mb, last.resident_mb


def _spread(outcomes: Sequence[RoundOutcome] | Sequence[StartOutcome], name: str) -> str:
    figures = sorted(getattr(each, name) for each in outcomes)
    if not figures:
        return ""
    if len(figures) == 1:
        return _text(figures[0])
    return f"{_text(median(figures))} ({_text(figures[0])} to {_text(figures[-1])})"


def _text(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 1000 else f"{figure:.3g}"


def _median(figures: Iterable[float]) -> float:
    return float(median(figures))
