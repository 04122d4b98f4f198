"""Schedules of faults, judged as the scenarios with real processes are; the gate's seeds are fixed."""

from random import Random

import pytest

from hedgelock_ingest_tests.processes.proof import proofs
from hedgelock_ingest_tests.simulation.run import run

# Tasks of killed processes are discarded at the end, in any state.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

SEEDS_A_TEST = 125
GATE_TESTS = 8
PROOF_TESTS = 40


def check_seeds(seeds: range) -> None:
    """Run schedules, and report those with findings."""
    broken = []
    for seed in seeds:
        outcome = run(seed)
        proofs.append(outcome.proved)
        if outcome.findings:
            broken.append(f"{outcome.plan}\n    " + "\n    ".join(outcome.findings[:5]))
    again = 'follow one with make simulate ARGS="--seed N"'
    assert not broken, f"{len(broken)} of {len(seeds)} schedules broke a guarantee; {again}\n" + "\n".join(broken)


@pytest.mark.parametrize("part", range(GATE_TESTS))
def test_no_schedule_of_faults_breaks_a_guarantee(part: int) -> None:
    """With faults of lines, process, Kafka, disk, clock and REST, records arrive once, in order, and gaps are known."""
    check_seeds(range(part * SEEDS_A_TEST, (part + 1) * SEEDS_A_TEST))


@pytest.mark.proof
@pytest.mark.parametrize("part", range(PROOF_TESTS))
def test_no_new_schedule_breaks_a_guarantee(moments: Random, part: int) -> None:
    """The proof draws new schedules."""
    first = moments.randrange(1_000, 2**31)
    check_seeds(range(first, first + SEEDS_A_TEST))
