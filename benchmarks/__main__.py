"""The command `python -m benchmarks`: runs the rounds one after the other, product and bare loop in turns."""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from benchmarks.children import ROOT
from benchmarks.report import BenchmarkReport
from benchmarks.restart import Backlog, build_journal, create_topics, run_start
from benchmarks.rounds import Contender, RoundFailed, run_round
from benchmarks.sender import Load
from hedgelock_ingest.errors import SandboxError
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka

SUBJECTS = ("latency", "sustained", "ceiling", "start")
WINDOW_FRAMES = 8_000

# Bounds the disk space, however long the rounds are.
_KAFKA_SETTINGS = {
    "log.segment.bytes": 64 * 1024 * 1024,
    "log.retention.bytes": 128 * 1024 * 1024,
    "log.retention.check.interval.ms": 10_000,
    "log.segment.delete.delay.ms": 1_000,
}
_BOTH = (Contender.BARE, Contender.PRODUCT)
_ONLY_PRODUCT = (Contender.PRODUCT,)


@dataclass(frozen=True, slots=True)
class BenchmarkPlan:
    """One subject: a load, the contenders that carry it in turns, and the number of rounds."""

    subject: str
    load: Load
    contenders: tuple[Contender, ...] = _BOTH
    rounds: int = 1


def plans(*, quick: bool, rounds: int) -> list[BenchmarkPlan]:
    """Return the loads; they take about 7 minutes, or 1 if `quick`."""
    if quick:
        return [
            BenchmarkPlan("latency at 1,000/s", Load(rate=1_000, seconds=3, settle_s=0.5)),
            BenchmarkPlan("sustained 20,000/s", Load(rate=20_000, seconds=4, settle_s=0.5)),
            BenchmarkPlan("ceiling", Load(rate=0, seconds=3, settle_s=1, window=WINDOW_FRAMES)),
        ]
    return [
        BenchmarkPlan("latency at 1,000/s", Load(rate=1_000, seconds=20), rounds=rounds),
        BenchmarkPlan("latency at 1,000/s, two lines", Load(rate=1_000, seconds=15, lines=2), _ONLY_PRODUCT),
        BenchmarkPlan("sustained 20,000/s", Load(rate=20_000, seconds=20), (Contender.BARE,)),
        BenchmarkPlan("sustained 20,000/s", Load(rate=20_000, seconds=60), _ONLY_PRODUCT),
        BenchmarkPlan("ceiling", Load(rate=0, seconds=10, settle_s=3, window=WINDOW_FRAMES), rounds=max(1, rounds - 1)),
    ]


def measure(report: BenchmarkReport, servers: str, chosen: Sequence[str], *, quick: bool, rounds: int) -> None:
    """Run the chosen subjects; a failed round is recorded, and the next one runs."""
    create_topics(servers, {})
    for plan in plans(quick=quick, rounds=rounds):
        if plan.subject.partition(" ")[0] in chosen:
            for contender in plan.contenders * plan.rounds:
                with _failure_recorded(report, f"{plan.subject}, {contender}"):
                    outcome = run_round(contender, servers, plan.load)
                    report.outcomes.setdefault(plan.subject, []).append(outcome)
    if "start" in chosen:
        _measure_starts(report, servers, quick=quick, rounds=rounds)


def main() -> int:
    """Measure, print and write; exit code 0 if every frame of every round arrived once, at any speed."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, _stop)
    report = BenchmarkReport()
    began_s = time.monotonic()
    try:
        with EmbeddedKafka(settings=_KAFKA_SETTINGS) as kafka:
            measure(
                report,
                kafka.bootstrap_servers,
                arguments.only or SUBJECTS,
                quick=arguments.quick,
                rounds=arguments.rounds,
            )
    except KeyboardInterrupt:
        report.failures.append("interrupted")
    except SandboxError as error:
        report.failures.append(str(error))
    report.show()
    output = arguments.output
    if output is None and not arguments.quick:
        output = ROOT / "benchmarks" / "results" / f"{datetime.now(UTC):%Y-%m-%dT%H%M}.json"
    if output is not None:
        report.write(output)
        print(f"written to {output}, after {time.monotonic() - began_s:.0f} s")
    return 0 if report.is_complete else 1


def _measure_starts(report: BenchmarkReport, servers: str, *, quick: bool, rounds: int) -> None:
    backlog = Backlog(frames=20_000, unacknowledged=2_000) if quick else Backlog(1_000_000, 10_000)
    with tempfile.TemporaryDirectory(prefix="hedgelock-bench-") as folder:
        journal = Path(folder) / "journal"
        _log(f"writing a journal of {backlog.frames:,} frames")
        build_journal(journal, backlog)
        for number in range(1 if quick else rounds):
            for contender in _BOTH:
                with _failure_recorded(report, f"start, {contender}"):
                    name = f"start-{number}"
                    report.starts.append(run_start(contender, servers, journal, backlog, name=name))


@contextmanager
def _failure_recorded(report: BenchmarkReport, name: str) -> Iterator[None]:
    _log(name)
    try:
        yield
    except RoundFailed as error:
        report.failures.append(f"{name}: {error}")
        _log(f"failed: {error}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure the stream against the bare loop."
    )
    parser.add_argument("--only", action="append", choices=SUBJECTS, help="only this subject; may be repeated")
    parser.add_argument(
        "--quick", action="store_true", help="one minute, to test that it works; its figures are not representative"
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds of latency and start, in turns; default 3")
    parser.add_argument("--output", type=Path, help="the JSON file; default benchmarks/results/<time>.json")
    return parser.parse_args()


def _log(text: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", file=sys.stderr, flush=True)


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
