"""The table of breaks: it matches the current product, and the command that runs it finds the breaks."""

import subprocess
import sys
from collections import Counter

import pytest

from hedgelock_ingest_tests.simulation.breaks import BREAKS, Break
from hedgelock_ingest_tests.simulation.mutants import OutOfDate, place

QUICKEST = ("arrived_ignored", "no_gap_on_a_start")
A_FEW_SEEDS = 40


@pytest.mark.parametrize("one", BREAKS, ids=lambda one: one.name)
def test_the_old_text_of_a_break_is_in_the_product_once(one: Break) -> None:
    """The old text occurs once in its file, and its replacement compiles: else a survivor would prove nothing."""
    path, broken = place(one)
    compile(broken, path, "exec")
    assert broken != path.read_text()


def test_no_two_breaks_have_one_name() -> None:
    """Names select breaks on the command line."""
    assert max(Counter(one.name for one in BREAKS).values()) == 1


def test_a_break_whose_text_is_missing_is_reported() -> None:
    """A changed product must not count as broken by a change that was not applied."""
    with pytest.raises(OutOfDate, match=r"service\.py has the old text of gone 0 times"):
        place(Break("gone", "Nothing.", "service.py", "no such text in it", ""))


def test_breaks_are_found_within_a_few_seeds() -> None:
    """The command runs the unbroken product and two breaks, and reports the expected results."""
    command = [sys.executable, "-m", "hedgelock_ingest_tests.simulation.mutants", *QUICKEST]
    ran = subprocess.run([*command, "--seeds", str(A_FEW_SEEDS)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    lines = ran.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["unbroken", *QUICKEST]
    assert "2 breaks, 0 not as they should be" in lines[-1]
