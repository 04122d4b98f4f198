"""Determinism of a simulated run: a failing seed can be repeated, also in another process."""

import hashlib
import os
import subprocess
import sys

import pytest

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest_tests.simulation.run import draw, play, run

_SEEDS = (1, 3, 11)
"""Several processes each, one seed under Dagster, one with two lines a feed."""


def digest(seed: int) -> str:
    """Return a hash of a seed's trace, log lines and records in Kafka."""
    world = play(draw(seed), log=True)
    records = [world.broker.records(world.settings.topic(topic.value)) for topic in Topic]
    assert any(records)
    return hashlib.sha256(repr((world.trace, records)).encode()).hexdigest()


def digests() -> list[str]:
    """Return the hashes of this file's seeds."""
    return [digest(seed) for seed in _SEEDS]


def test_same_seed_gives_the_same_trace_and_the_same_records() -> None:
    """A finding is useless when its schedule cannot be repeated."""
    assert digests() == digests()


def test_another_process_with_another_hash_seed_gives_the_same_trace() -> None:
    """The iteration order of a set of strings must not affect the log or Kafka."""
    environment = {**os.environ, "PYTHONHASHSEED": "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"}
    program = f"from {__name__} import digests; print(*digests())"
    child = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert child.stdout.split() == digests()


@pytest.mark.parametrize("seed", _SEEDS)
def test_logging_changes_nothing(seed: int) -> None:
    """A repeated run with logging must show the trace of the run that failed."""
    silent, logged = run(seed), run(seed, log=True)
    assert silent.trace == [line for line in logged.trace if " s      " not in line]
    assert (silent.findings, str(silent.proved)) == (logged.findings, str(logged.proved))
