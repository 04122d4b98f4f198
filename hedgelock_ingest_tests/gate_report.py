"""Pytest plugin of the gate: writes the outcome of each test, and runs only named tests."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec
import pytest

REPORT = "HEDGELOCK_GATE_REPORT"
"""The variable that names the file to write."""
ONLY = "HEDGELOCK_GATE_ONLY"
"""The variable with the node ids of the only tests to run, a line each; empty runs all."""


@dataclass(slots=True)
class GateOutcome:
    """Outcome of a test, and its duration including set-up and clean-up."""

    result: Literal["passed", "failed", "skipped"] = "passed"
    duration_s: float = 0.0


@dataclass(slots=True)
class GateReport:
    """A run: `tests` by node id; it is incomplete if it stopped early or a module did not load."""

    tests: dict[str, GateOutcome] = field(default_factory=dict)
    is_whole: bool = False

    @classmethod
    def read(cls, path: Path) -> "GateReport":
        """Read a report; a run that ended before it could write one is incomplete."""
        return msgspec.json.decode(path.read_bytes(), type=cls) if path.exists() else cls()


_report = GateReport(is_whole=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep only the named tests."""
    if names := os.environ.get(ONLY):
        wanted = set(names.split("\n"))
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in wanted])
        items[:] = [item for item in items if item.nodeid in wanted]


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Note a module that does not load."""
    if report.failed:
        _report.is_whole = False


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note a phase of a test; a worker that crashes reports its test as failed."""
    outcome = _report.tests.setdefault(report.nodeid, GateOutcome())
    outcome.duration_s += report.duration
    if report.failed or (report.skipped and outcome.result != "failed"):
        outcome.result = report.outcome


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the report; workers of xdist do not, since their parent process has all outcomes."""
    if session.shouldfail or session.shouldstop:
        _report.is_whole = False
    if (path := os.environ.get(REPORT)) and not hasattr(session.config, "workerinput"):
        Path(path).write_bytes(msgspec.json.encode(_report))
