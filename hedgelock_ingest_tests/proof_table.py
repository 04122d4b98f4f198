"""The table at the end of `make proof`: what was proved, subject by subject, in figures."""

import ast
import io
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent
PROVED = "proved"
"""The property of a test's report that holds the figures of its proof."""
FIGURES = {"events": "events sent", "in_kafka": "in Kafka, once", "healed": "filled by REST", "gaps": "gaps"}


@dataclass(slots=True)
class Subject:
    """Totals of the tests of one module; each node id is in one of the sets."""

    passed: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    skipped: set[str] = field(default_factory=set)
    duration_s: float = 0.0
    has_row: bool = False
    figures: dict[str, Mapping[str, int]] = field(default_factory=dict)


class ProofTable:
    """Pytest plugin that adds up reports and prints the table."""

    def __init__(self) -> None:
        """Start with an empty table."""
        self._subjects: dict[str, Subject] = defaultdict(Subject)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a module that does not load."""
        if report.failed:
            subject = self._subjects[report.nodeid.partition("::")[0]]
            subject.failed.add(report.nodeid)
            subject.has_row = True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add a phase of a test; the figures come with its last one, and a crashed worker reports no phase."""
        subject = self._subjects[report.nodeid.partition("::")[0]]
        subject.duration_s += report.duration
        subject.has_row |= report.failed or "proof" in report.keywords
        if report.failed:
            subject.failed.add(report.nodeid)
        elif report.skipped:
            subject.skipped.add(report.nodeid)
        elif report.when == "call":
            subject.passed.add(report.nodeid)
        for name, found in report.user_properties:
            if name == PROVED and isinstance(found, dict):
                subject.has_row = True
                subject.figures[report.nodeid] = found

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print a row for each module that compares streams or is not part of the gate, and one for all others."""
        if terminalreporter.config.option.collectonly:
            return
        table = Table("what was proved", "passed", "failed", "skipped", "minutes", *FIGURES.values(), title="Proof")
        rest = Subject()
        for path, subject in sorted(self._subjects.items()):
            if subject.has_row:
                table.add_row(_first_sentence(ROOT / path), *_cells(subject))
            else:
                rest.passed |= subject.passed
                rest.skipped |= subject.skipped
                rest.duration_s += subject.duration_s
        table.add_row("Everything else, as in the gate", *_cells(rest))
        text = io.StringIO()
        Console(file=text, width=160).print(table)
        terminalreporter.write(text.getvalue())


def _cells(subject: Subject) -> list[str]:
    """Return a row's cells after the first; figures count passed tests only."""
    total: Counter[str] = Counter()
    for node_id, figures in subject.figures.items():
        if node_id in subject.passed - subject.failed:
            total.update(figures)
    counts = [len(subject.passed - subject.failed), len(subject.failed), len(subject.skipped - subject.failed)]
    minutes = f"{subject.duration_s / 60:.1f}"
    figures_shown = [f"{total[name]:,}" if total[name] else "" for name in FIGURES]
    return [*(str(count or "") for count in counts), minutes, *figures_shown]


def _first_sentence(path: Path) -> str:
    if not path.is_file():
        return path.name
    text = ast.get_docstring(ast.parse(path.read_text())) or path.stem
    return text.partition("\n")[0].rstrip(".")
