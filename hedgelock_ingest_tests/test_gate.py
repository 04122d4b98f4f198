"""The gate's verdict: luck is reported and bounded, a real failure fails, and nothing passes by not being run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
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


def run_gate(folder: Path, *bodies: str, arguments: tuple[str, ...] = ()) -> tuple[int, str]:
    """Run the gate over tests with these bodies in a folder of their own; return its exit code and its output."""
    tests = "".join(body.format(name=f"number_{number}") for number, body in enumerate(bodies))
    (folder / "test_sample.py").write_text(f"import pathlib, pytest\n{tests}")
    (folder / "pytest.ini").write_text("[pytest]\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    done = subprocess.run(
        [sys.executable, "-m", "hedgelock_ingest_tests.gate", "-p", "xdist", "-n", "1", *arguments],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


def test_all_pass(tmp_path: Path) -> None:
    """The usual case runs once and says nothing of luck."""
    code, said = run_gate(tmp_path, PASSES, PASSES)
    assert code == 0, said
    assert "gate:" not in said


def test_failure_that_does_not_repeat_is_reported_as_flaky(tmp_path: Path) -> None:
    """Nobody's work is refused for luck, and nobody overlooks it: name and both times are printed."""
    code, said = run_gate(tmp_path, PASSES, FAILS_ONCE, FAILS_ONCE)
    assert code == 0, said
    flaky = [line for line in said.splitlines() if line.startswith("FLAKY")]
    assert sorted(line.split()[1] for line in flaky) == ["test_sample::test_number_1:", "test_sample::test_number_2:"]
    assert all(re.search(r": failed after [0-9.]+ s, passed alone after [0-9.]+ s$", line) for line in flaky), flaky
    assert "run-last-failure: rerun previous 2 failures" in said, "what had passed was run again"


def test_more_failures_than_luck_explains_fail(tmp_path: Path) -> None:
    """Three at once have a cause, also if each would pass the second time."""
    code, said = run_gate(tmp_path, FAILS_ONCE, FAILS_ONCE, FAILS_ONCE)
    assert code == 1, said
    assert "FLAKY" not in said


@pytest.mark.parametrize("body", [FAILS, FAILS_THEN_SKIPS], ids=["fails-again", "skipped-the-second-time"])
def test_failure_that_repeats_fails(tmp_path: Path, body: str) -> None:
    """Also beside a flaky one, which is still reported; a test that is not run has not passed."""
    code, said = run_gate(tmp_path, body, FAILS_ONCE)
    assert code == 1, said
    assert "FAILED test_sample::test_number_0: failed after" in said
    assert "FLAKY test_sample::test_number_1: failed after" in said


@pytest.mark.parametrize(
    ("bodies", "arguments", "expected"),
    [((), (), 5), ((PASSES,), ("--no-such-option",), 4), (("import nothing_of_this_name\n",), (), 1)],
    ids=["no-tests", "wrong-usage", "module-does-not-load"],
)
def test_what_is_no_failure_of_a_test_is_not_run_again(
    tmp_path: Path, bodies: tuple[str, ...], arguments: tuple[str, ...], expected: int
) -> None:
    """No tests, wrong arguments and a module that does not load never pass."""
    code, said = run_gate(tmp_path, *bodies, arguments=arguments)
    assert code == expected, said
    assert "FLAKY" not in said
