"""Run schedules of faults: `python -m hedgelock_ingest_tests.simulation --seed 7`, or `--seeds 1000`."""

import sys
import time
from typing import Annotated

import typer

from hedgelock_ingest_tests.simulation.run import run


def simulate(
    seed: Annotated[int | None, typer.Option(help="run this seed, and print each step")] = None,
    seeds: Annotated[int, typer.Option(help="number of seeds to run")] = 1_000,
    first: Annotated[int, typer.Option(help="first seed")] = 0,
) -> None:
    """Run the real program in a simulated world, with faults drawn from seeds, and judge the records in Kafka."""
    if seed is not None:
        outcome = run(seed, log=True)
        print(outcome.plan, *outcome.trace, *outcome.findings, outcome.proved, sep="\n")
        sys.exit(bool(outcome.findings))
    sys.unraisablehook = lambda _: None  # from leftovers of killed processes
    began_s, failed = time.monotonic(), 0
    for number in range(first, first + seeds):
        outcome = run(number)
        if outcome.findings:
            failed += 1
            print(f"{outcome.plan}\n    " + "\n    ".join(outcome.findings[:4]), flush=True)
    took_s = time.monotonic() - began_s
    print(f"{seeds} seeds, {failed} failed, {took_s:.1f} s, {took_s / seeds * 1000:.0f} ms each")
    sys.exit(bool(failed))


if __name__ == "__main__":
    typer.run(simulate)
