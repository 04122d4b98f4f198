"""The gate's result: a failure that does not repeat is reported, one that repeats fails; an incomplete run fails."""

import re
from pathlib import Path

import pytest

from hedgelock_ingest_tests.sample_run import run_samples

PASSES = "def test_{name}(): pass\n"
FAILS = "def test_{name}(): assert False\n"
FAILS_ONCE = """
def test_{name}():
    seen = pathlib.Path(__file__).with_suffix(".{name}")
    if not seen.exists():
        seen.touch()
        assert False
"""
FAILS_THEN_SKIPS = FAILS_ONCE + "    pytest.skip('no server')\n"
CRASHES = "def test_{name}(): os._exit(1)\n"
AGAIN = "each is run once more, alone"


def run_gate(folder: Path, *bodies: str, arguments: tuple[str, ...] = ("-n", "1")) -> tuple[int, str]:
    """Run the gate over tests with these bodies in an empty folder; return its exit code and its output."""
    tests = "".join(body.format(name=f"number_{number}") for number, body in enumerate(bodies))
    (folder / "test_sample.py").write_text(f"import os, pathlib, pytest\n{tests}")
    done = run_samples(folder, "hedgelock_ingest_tests.gate", *arguments)
    return done.returncode, done.stdout + done.stderr


def test_all_pass(tmp_path: Path) -> None:
    """Without failures the tests run once."""
    code, output = run_gate(tmp_path, PASSES, PASSES)
    assert code == 0, output
    assert "gate:" not in output


def test_failure_that_does_not_repeat_is_reported_as_flaky(tmp_path: Path) -> None:
    """The gate passes, and the test is not overlooked: node id and both times are printed."""
    code, output = run_gate(tmp_path, PASSES, FAILS_ONCE, FAILS_ONCE)
    assert code == 0, output
    flaky = [line for line in output.splitlines() if line.startswith("FLAKY")]
    assert sorted(line.split()[1] for line in flaky) == [
        "test_sample.py::test_number_1:",
        "test_sample.py::test_number_2:",
    ]
    assert all(re.search(r": failed after [0-9.]+ s, passed alone after [0-9.]+ s$", line) for line in flaky), flaky
    assert re.search(r"^=+ 2 passed in", output, re.MULTILINE), "what had passed was run again"


def test_more_than_two_failures_fail(tmp_path: Path) -> None:
    """Three failures have a common cause, also if each would pass the second time."""
    code, output = run_gate(tmp_path, FAILS_ONCE, FAILS_ONCE, FAILS_ONCE)
    assert code == 1, output
    assert "FLAKY" not in output


@pytest.mark.parametrize(
    ("body", "end"),
    [(FAILS, "failed alone after"), (FAILS_THEN_SKIPS, "skipped alone after"), (CRASHES, "failed alone after")],
    ids=["fails-again", "skipped-the-second-time", "crashes-its-process"],
)
def test_failure_that_repeats_fails(tmp_path: Path, body: str, end: str) -> None:
    """A test that does not finish the second time has not passed either."""
    code, output = run_gate(tmp_path, body, PASSES)
    assert code == 1, output
    assert re.search(rf"^FAILED test_sample.py::test_number_0: failed after [0-9.]+ s, {end}", output, re.MULTILINE), (
        output
    )


def test_real_failure_beside_a_flaky_one_fails(tmp_path: Path) -> None:
    """The flaky one is reported as well."""
    code, output = run_gate(tmp_path, FAILS, FAILS_ONCE)
    assert code == 1, output
    assert "FLAKY test_sample.py::test_number_1: failed after" in output


@pytest.mark.parametrize("workers", ["0", "1"])
def test_run_that_stopped_early_does_not_pass(tmp_path: Path, workers: str) -> None:
    """After -x the tests that were never started may also fail."""
    code, output = run_gate(tmp_path, FAILS_ONCE, FAILS, arguments=("-n", workers, "-x"))
    assert code != 0, output
    assert AGAIN not in output


@pytest.mark.parametrize(
    ("bodies", "arguments", "expected"),
    [
        ((), (), 5),
        ((PASSES,), ("--no-such-option",), 4),
        ((PASSES,), ("--proof",), 4),
        (("import nothing_of_this_name\n",), (), 1),
    ],
    ids=["no-tests", "wrong-usage", "new-seed", "module-does-not-load"],
)
def test_failure_outside_a_test_is_not_run_again(
    tmp_path: Path, bodies: tuple[str, ...], arguments: tuple[str, ...], expected: int
) -> None:
    """No tests, wrong arguments and a module that does not load never pass."""
    code, output = run_gate(tmp_path, *bodies, arguments=("-n", "1", *arguments))
    assert code == expected, output
    assert AGAIN not in output
