"""One child of `mutants`: run seeds until one is judged broken, and print a JSON line about it."""

import json
import os
import signal
import sys
from typing import Annotated, Any

import typer

from hedgelock_ingest_tests.simulation.run import run

LONGEST_SEED_S = 30
"""A seed that takes so much of the machine's time stands still: it takes milliseconds, at worst a second."""
_FAULTY = ("NameError", "AttributeError", "TypeError", "ImportError", "UnboundLocalError", "ModuleNotFoundError")


def hunt(
    seeds: Annotated[int, typer.Option(help="how many to run at most")] = 1_000,
    first: Annotated[int, typer.Option(help="the first of them")] = 0,
) -> None:
    """Run seeds until one has findings."""
    current = first

    def hang(*_: Any) -> None:
        _tell(current, hangs=True)
        sys.stdout.flush()
        os._exit(0)

    signal.signal(signal.SIGALRM, hang)
    for current in range(first, first + seeds):
        signal.alarm(LONGEST_SEED_S)
        outcome = run(current)
        if outcome.findings:
            _tell(current, finding=_typical(outcome.findings), is_faulty=any(map(_is_faulty, outcome.findings)))
            return
    _tell(current)


def _typical(findings: list[str]) -> str:
    return findings[0]


def _is_faulty(finding: str) -> bool:
    """Tell whether the program met an error that only a wrongly written break makes."""
    return any(f"{name}(" in finding for name in _FAULTY)


def _tell(seed: int, **what: Any) -> None:
    print(json.dumps({"seed": seed, **what}), flush=True)


if __name__ == "__main__":
    typer.run(hunt)
