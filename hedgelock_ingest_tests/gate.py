"""
The gate: run the tests; run each failed one once more, alone; decide whether the failure was luck.

`python -m hedgelock_ingest_tests.gate` takes pytest's arguments. A test that passes the second time is reported as
FLAKY, with the times of both runs, and is to be fixed. The gate fails if a test fails twice, or if more than
`MAX_FLAKY` tests fail the first time.
"""

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

MAX_FLAKY = 2
"""More failures than this cannot be luck, so nothing is run again."""
_PASSED, _FAILED = 0, 1
"""Exit codes of pytest. All others (interrupted, wrong usage, no tests) are the gate's, too."""


class Outcome(NamedTuple):
    """How a test ended; one that was skipped has neither passed nor failed."""

    duration_s: float
    has_passed: bool
    has_failed: bool


def main(arguments: Sequence[str]) -> int:
    """Run the gate with arguments for pytest, print the verdict, and return the exit code."""
    with tempfile.TemporaryDirectory(prefix="gate-") as folder:
        code, outcomes = _run(arguments, Path(folder) / "first.xml")
        failed = {name: outcome for name, outcome in outcomes.items() if outcome.has_failed}
        if code != _FAILED:
            return code
        if len(failed) > MAX_FLAKY:
            print(f"gate: FAILED: {len(failed)} tests failed, more than the {MAX_FLAKY} that may be luck")
            return _FAILED
        print(f"gate: {len(failed)} failed; each is run once more, alone", flush=True)
        again = ["-n", "0", "--last-failed", "--last-failed-no-failures", "none"]
        second_code, outcomes_again = _run([*arguments, *again], Path(folder) / "second.xml")
    return _verdict(failed, outcomes_again, second_code)


def _run(arguments: Sequence[str], report: Path) -> tuple[int, Mapping[str, Outcome]]:
    command = [sys.executable, "-m", "pytest", *arguments, f"--junitxml={report}"]
    code = subprocess.run(command, check=False).returncode
    return code, _outcomes(report) if report.exists() else {}


def _outcomes(report: Path) -> Mapping[str, Outcome]:
    """Read pytest's own report; a test whose clean-up failed, too, stands there twice."""
    found: dict[str, Outcome] = {}
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 - pytest has just written it
        name = f"{case.get('classname')}::{case.get('name')}"
        has_failed = any(case.find(kind) is not None for kind in ("failure", "error"))
        outcome = Outcome(float(case.get("time") or 0), not has_failed and case.find("skipped") is None, has_failed)
        if earlier := found.get(name):
            outcome = _together(earlier, outcome)
        found[name] = outcome
    return found


def _together(one: Outcome, other: Outcome) -> Outcome:
    return Outcome(
        one.duration_s + other.duration_s, one.has_passed and other.has_passed, one.has_failed or other.has_failed
    )


def _verdict(failed: Mapping[str, Outcome], again: Mapping[str, Outcome], code: int) -> int:
    """Print one line for each test that failed, and return the exit code."""
    never = Outcome(0.0, has_passed=False, has_failed=True)
    has_passed = code == _PASSED
    for name, first in failed.items():
        second = again.get(name, never)
        has_passed = has_passed and second.has_passed
        verdict, end = ("FLAKY", "passed") if second.has_passed else ("FAILED", "did not pass")
        print(f"{verdict} {name}: failed after {first.duration_s:.1f} s, {end} alone after {second.duration_s:.1f} s")
    print(f"gate: {'passed' if has_passed else 'FAILED'}")
    return _PASSED if has_passed else _FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
