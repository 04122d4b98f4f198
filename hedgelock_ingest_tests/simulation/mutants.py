"""Break the product on purpose and see it found: `python -m hedgelock_ingest_tests.simulation.mutants`."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory
from typing import Annotated, NamedTuple

import typer

import hedgelock_ingest
from hedgelock_ingest_tests.simulation.breaks import BREAKS, Break

UNBROKEN = "unbroken"
UNBROKEN_SEEDS = 50
_PACKAGES = ("hedgelock_ingest", "hedgelock_ingest_tests")
_ROOT = Path(hedgelock_ingest.__file__).parents[1]
_CHILD = "hedgelock_ingest_tests.simulation.hunt"
_SHOWN = 120
_START_S = 60.0
_LONGEST_A_SEED_S = 1.0
"""More than seeds take on average on a machine that has others to carry."""


class OutOfDate(Exception):
    """The table names a text that does not stand once in its file."""


class Caught(NamedTuple):
    """What came of a break; `finding` is None where it survived, `trouble` says why nothing can be said."""

    name: str
    seed: int | None
    seeds: int
    finding: str | None
    trouble: str | None
    took_s: float

    @property
    def is_right(self) -> bool:
        """Whether the judge found a break, and nothing where there is none."""
        return self.trouble is None and (self.finding is None) == (self.name == UNBROKEN)

    def __str__(self) -> str:
        seed = "-" if self.seed is None else str(self.seed)
        told = self.trouble or self.finding or ("no finding" if self.name == UNBROKEN else "SURVIVED")
        text = told if len(told) <= _SHOWN else told[: _SHOWN - 2] + " …"
        return f"{self.name:28} {seed:>5} {self.seeds:>6} {self.took_s:>6.0f} s  {text}"


def place(one: Break, root: Path = _ROOT) -> tuple[Path, str]:
    """
    Give the file of a break and its text as it is broken.

    Raises:
        OutOfDate: The old text does not stand in it once.
    """
    path = root / "hedgelock_ingest" / one.file
    text = path.read_text()
    count = text.count(one.old)
    if count != 1:
        raise OutOfDate(f"the table of breaks is out of date: {one.file} has the old text of {one.name} {count} times")
    return path, text.replace(one.old, one.new)


def attempt(one: Break | None, origin: Path, seeds: int, first: int) -> Caught:
    """Break a copy of the packages in `origin` and run seeds on it until one is judged broken."""
    began_s, name = time.monotonic(), UNBROKEN if one is None else one.name
    with TemporaryDirectory(prefix="hedgelock-break-") as folder:
        root = Path(folder)
        _copy(origin, root)
        if one is not None:
            path, text = place(one, root)
            path.write_text(text)
        told, trouble = _hunt(root, seeds, first)
    took_s = time.monotonic() - began_s
    seed = told.get("seed")
    if trouble is not None or not isinstance(seed, int):
        return Caught(name, None, 0, None, trouble or "the child said nothing", took_s)
    finding, ran = told.get("finding"), seed - first + 1
    if told.get("hangs"):
        return Caught(name, seed, ran, None, "a seed does not end: neither caught nor survived", took_s)
    if finding is None:
        return Caught(name, None, ran, None, None, took_s)
    trouble = f"the break itself is faulty: {finding}" if told.get("is_faulty") else None
    return Caught(name, seed, ran, str(finding), trouble, took_s)


def _copy(origin: Path, root: Path) -> None:
    for package in _PACKAGES:
        copytree(origin / package, root / package)


def _hunt(root: Path, seeds: int, first: int) -> tuple[dict[str, object], str | None]:
    command = [sys.executable, "-m", _CHILD, "--seeds", str(seeds), "--first", str(first)]
    timeout_s = _START_S + _LONGEST_A_SEED_S * seeds
    try:
        child = subprocess.run(
            command, cwd=root, env=_environment(root), capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        return {}, f"the child did not end within {timeout_s:.0f} s"
    lines = child.stdout.splitlines()
    if child.returncode or not lines:
        last = (child.stderr.strip().splitlines() or ["no output"])[-1]
        return {}, f"the child crashed: {last}"
    told: dict[str, object] = json.loads(lines[-1])
    return told, None


def _environment(root: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPATH": str(root), "PYTHONHASHSEED": "0"}


def attempts(chosen: Sequence[Break], seeds: int, first: int, processes: int) -> Iterable[Caught]:
    """Try the unbroken product and then each break, several at once; give them in their order."""
    with TemporaryDirectory(prefix="hedgelock-unbroken-") as folder, ThreadPoolExecutor(processes) as pool:
        origin = Path(folder)
        _copy(_ROOT, origin)
        # Compiled once, in the place that all others are copied from.
        subprocess.run([sys.executable, "-c", f"import {_CHILD}"], cwd=origin, env=_environment(origin), check=True)
        whole = pool.submit(attempt, None, origin, min(seeds, UNBROKEN_SEEDS), first)
        broken = [pool.submit(attempt, one, origin, seeds, first) for one in chosen]
        for future in (whole, *broken):
            yield future.result()


def mutate(
    names: Annotated[list[str] | None, typer.Argument(help="only these breaks")] = None,
    seeds: Annotated[int, typer.Option(help="after how many a break has survived")] = 1_000,
    first: Annotated[int, typer.Option(help="the first seed")] = 0,
    processes: Annotated[int, typer.Option(help="how many breaks are tried at once")] = 2,
    show: Annotated[bool, typer.Option("--list", help="only show what there is")] = False,
) -> None:
    """Break the product in many ways, one at a time, and see that the simulation finds each of them."""
    unknown = set(names or ()) - {one.name for one in BREAKS}
    if unknown:
        sys.exit(f"no such break: {', '.join(sorted(unknown))}")
    chosen = [one for one in BREAKS if not names or one.name in names]
    try:
        for one in chosen:
            place(one)
    except OutOfDate as error:
        sys.exit(str(error))
    if show:
        print(*(f"{one.name:28} {one.breaks}" for one in chosen), sep="\n")
        return
    print(f"{'break':28} {'seed':>5} {'seeds':>6} {'took':>8}  first finding")
    wrong = 0
    for caught in attempts(chosen, seeds, first, processes):
        print(caught, flush=True)
        wrong += not caught.is_right
    print(f"{len(chosen)} breaks, {wrong} not as they should be")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    typer.run(mutate)
