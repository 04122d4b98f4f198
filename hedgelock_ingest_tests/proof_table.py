"""The table at the end of `make proof`: what was proved, subject by subject, in figures."""

import ast
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent
PROVED = "proved"
"""The property of a test's report that holds the figures of its proofs."""
FIGURES = {"events": "events sent", "in_kafka": "in Kafka, once", "healed": "filled by REST", "gaps": "gaps"}


@dataclass(slots=True)
class Subject:
    """What the tests of one module add up to."""

    passed: int = 0
    failed: int = 0
    duration_s: float = 0.0
    has_row: bool = False
    figures: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FIGURES, 0))


class ProofTable:
    """A plugin of pytest's that adds up reports and prints the table."""

    def __init__(self) -> None:
        """Begin with nothing proved."""
        self._subjects: dict[str, Subject] = defaultdict(Subject)
        self._failed: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add a phase of a test; the figures come with its last one."""
        subject = self._subjects[report.nodeid.partition("::")[0]]
        subject.duration_s += report.duration
        subject.has_row |= report.failed or "proof" in report.keywords
        if report.failed:
            self._failed.add(report.nodeid)
        if report.when != "teardown":
            return
        subject.failed += report.nodeid in self._failed
        subject.passed += report.nodeid not in self._failed
        for name, found in report.user_properties:
            if name == PROVED and isinstance(found, dict):
                subject.has_row = True
                _add(subject.figures, found)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print a row for each module that compares streams or is not part of the gate, and one for all others."""
        table = Table("what was proved", "tests", "failed", "minutes", *FIGURES.values(), title="Proof")
        rest = Subject()
        for path, subject in sorted(self._subjects.items()):
            if subject.has_row:
                _row(table, _first_sentence(ROOT / path), subject)
            else:
                rest.passed += subject.passed
                rest.duration_s += subject.duration_s
        _row(table, "Everything else, as in the gate", rest)
        console = Console(file=terminalreporter._tw, width=150, no_color=True)  # type: ignore[arg-type]
        console.print(table)


def _add(figures: dict[str, int], found: Mapping[str, Any]) -> None:
    for name in FIGURES:
        figures[name] += found[name]


def _row(table: Table, what: str, subject: Subject) -> None:
    figures = [f"{number:,}" if number else "" for number in subject.figures.values()]
    counts = [str(subject.passed + subject.failed), str(subject.failed or ""), f"{subject.duration_s / 60:.1f}"]
    table.add_row(what, *counts, *figures)


def _first_sentence(module: Path) -> str:
    text = ast.get_docstring(ast.parse(module.read_text())) or module.stem
    return text.partition("\n")[0].rstrip(".")
