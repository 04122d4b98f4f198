"""
The gate: run the tests, run each failed one once more without the others, and print the result.

`python -m hedgelock_ingest_tests.gate` takes pytest's arguments. A test that passes the second time is reported as
FLAKY, with the times of both runs, and is to be fixed. The gate fails if a test fails twice, or if more than
`MAX_FLAKY` tests fail the first time.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from hedgelock_ingest_tests.gate_report import ONLY, REPORT, GateOutcome, GateReport

MAX_FLAKY = 2
"""More failures than this have a cause: nothing is run again."""
_PASSED, _FAILED, _WRONG_USAGE = 0, 1, 4
"""Exit codes of pytest; all others are the gate's, too."""


def main(arguments: Sequence[str]) -> int:
    """Run the gate with arguments for pytest, print the result, and return the exit code."""
    if "--proof" in arguments:
        print('gate: its seed is fixed; run everything, from a new seed, by "make proof"', file=sys.stderr)
        return _WRONG_USAGE
    code, report = _run(arguments)
    if code != _FAILED:
        return code
    failed = {name: outcome for name, outcome in report.tests.items() if outcome.result == "failed"}
    if not report.is_whole or not failed or len(failed) > MAX_FLAKY:
        why = f"{len(failed)} tests failed" if report.is_whole else "not all tests were run"
        print(f"gate: FAILED: {why}; nothing is run again")
        return _FAILED
    print(f"gate: {len(failed)} failed; each is run once more, alone", flush=True)
    code_again, again = _run([*arguments, "-n", "1"], only=list(failed))
    return _print_results(failed, again.tests, has_passed=code_again == _PASSED)


def _run(arguments: Sequence[str], *, only: Sequence[str] = ()) -> tuple[int, GateReport]:
    command = [sys.executable, "-m", "pytest", "-p", "hedgelock_ingest_tests.gate_report", *arguments]
    with tempfile.TemporaryDirectory(prefix="gate-") as folder:
        path = Path(folder) / "report.json"
        # Fixes the order of sets, too.
        environment = {"PYTHONHASHSEED": "0", **os.environ, REPORT: str(path), ONLY: "\n".join(only)}
        with subprocess.Popen(command, env=environment) as process:
            code = _waited_for(process)
        return code, GateReport.read(path)


def _waited_for(process: subprocess.Popen[bytes]) -> int:
    """Wait for pytest, also after Ctrl-C, which it receives too: it has processes to end."""
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def _print_results(failed: Mapping[str, GateOutcome], again: Mapping[str, GateOutcome], *, has_passed: bool) -> int:
    """Print one line for each test that failed, and return the exit code."""
    for name, first in failed.items():
        second = again.get(name)
        if second and second.result == "passed":
            line = f"FLAKY {name}: failed after {first.duration_s:.1f} s, passed alone after {second.duration_s:.1f} s"
        else:
            has_passed = False
            end = f"{second.result} alone after {second.duration_s:.1f} s" if second else "was not run again"
            line = f"FAILED {name}: failed after {first.duration_s:.1f} s, {end}"
        print(line)
    print(f"gate: {'passed' if has_passed else 'FAILED'}")
    return _PASSED if has_passed else _FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
