"""Child process of `mutants`: run seeds until one has findings, and print the result as a JSON line."""

import json
import os
import signal
import sys
from typing import Annotated, Any

import typer

from hedgelock_ingest_tests.simulation.run import run

MAX_SEED_S = 30
"""A seed that takes this long hangs: a seed takes milliseconds, at worst a second."""
_FAULTY = ("NameError", "AttributeError", "TypeError", "ImportError", "UnboundLocalError", "ModuleNotFoundError")


def search(
    seeds: Annotated[int, typer.Option(help="number of seeds to run at most")] = 1_000,
    first: Annotated[int, typer.Option(help="first seed")] = 0,
) -> None:
    """Run seeds until one has findings."""
    current = first

    def hang(*_: Any) -> None:
        _print_result(current, hangs=True)
        sys.stdout.flush()
        os._exit(0)

    signal.signal(signal.SIGALRM, hang)
    for current in range(first, first + seeds):
        signal.alarm(MAX_SEED_S)
        outcome = run(current)
        if outcome.findings:
            _print_result(current, finding=_typical(outcome.findings), is_faulty=any(map(_is_faulty, outcome.findings)))
            return
    _print_result(current)


def _typical(findings: list[str]) -> str:
    return findings[0]


def _is_faulty(finding: str) -> bool:
    """Return whether the finding is an error that only a wrongly written break causes."""
    return any(f"{name}(" in finding for name in _FAULTY)


def _print_result(seed: int, **what: Any) -> None:
    print(json.dumps({"seed": seed, **what}), flush=True)


if __name__ == "__main__":
    typer.run(search)
