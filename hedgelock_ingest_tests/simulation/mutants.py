"""Check that deliberate breaks of the product are found: `python -m hedgelock_ingest_tests.simulation.mutants`."""

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
_CHILD = "hedgelock_ingest_tests.simulation.seed_search"
_SHOWN = 120
_START_S = 60.0
_MAX_MEAN_SEED_S = 1.0
"""More than seeds take on average on a loaded machine."""


class OutOfDate(Exception):
    """The table names a text that does not occur exactly once in its file."""


class Caught(NamedTuple):
    """The result of a break; `finding` is None if it survived, `trouble` is why there is no result."""

    name: str
    seed: int | None
    seeds: int
    finding: str | None
    trouble: str | None
    took_s: float

    @property
    def is_right(self) -> bool:
        """Whether a break was found, and nothing was found without one."""
        return self.trouble is None and (self.finding is None) == (self.name == UNBROKEN)

    def __str__(self) -> str:
        seed = "-" if self.seed is None else str(self.seed)
        result = self.trouble or self.finding or ("no finding" if self.name == UNBROKEN else "SURVIVED")
        text = result if len(result) <= _SHOWN else result[: _SHOWN - 2] + " …"
        return f"{self.name:28} {seed:>5} {self.seeds:>6} {self.took_s:>6.0f} s  {text}"


def place(one: Break, root: Path = _ROOT) -> tuple[Path, str]:
    """
    Return the file of a break and the broken text of the file.

    Raises:
        OutOfDate: The old text does not occur exactly once.
    """
    path = root / "hedgelock_ingest" / one.file
    text = path.read_text()
    count = text.count(one.old)
    if count != 1:
        raise OutOfDate(f"the table of breaks is out of date: {one.file} has the old text of {one.name} {count} times")
    return path, text.replace(one.old, one.new)


def attempt(one: Break | None, origin: Path, seeds: int, first: int) -> Caught:
    """Break a copy of the packages in `origin` and run seeds on it until one has findings."""
    began_s, name = time.monotonic(), UNBROKEN if one is None else one.name
    with TemporaryDirectory(prefix="hedgelock-break-") as folder:
        root = Path(folder)
        _copy(origin, root)
        if one is not None:
            path, text = place(one, root)
            path.write_text(text)
        result, trouble = _search_seeds(root, seeds, first)
    took_s = time.monotonic() - began_s
    seed = result.get("seed")
    if trouble is not None or not isinstance(seed, int):
        return Caught(name, None, 0, None, trouble or "the child printed nothing", took_s)
    finding, ran = result.get("finding"), seed - first + 1
    if result.get("hangs"):
        return Caught(name, seed, ran, None, "a seed does not end: neither caught nor survived", took_s)
    if finding is None:
        return Caught(name, None, ran, None, None, took_s)
    trouble = f"the break itself is faulty: {finding}" if result.get("is_faulty") else None
    return Caught(name, seed, ran, str(finding), trouble, took_s)


def _copy(origin: Path, root: Path) -> None:
    for package in _PACKAGES:
        copytree(origin / package, root / package)


def _search_seeds(root: Path, seeds: int, first: int) -> tuple[dict[str, object], str | None]:
    command = [sys.executable, "-m", _CHILD, "--seeds", str(seeds), "--first", str(first)]
    timeout_s = _START_S + _MAX_MEAN_SEED_S * seeds
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
    result: dict[str, object] = json.loads(lines[-1])
    return result, None


def _environment(root: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPATH": str(root), "PYTHONHASHSEED": "0"}


def attempts(chosen: Sequence[Break], seeds: int, first: int, processes: int) -> Iterable[Caught]:
    """Try the unbroken product and then each break, several at once; yield the results in order."""
    with TemporaryDirectory(prefix="hedgelock-unbroken-") as folder, ThreadPoolExecutor(processes) as pool:
        origin = Path(folder)
        _copy(_ROOT, origin)
        # Compiled once, in the folder that all others are copied from.
        subprocess.run([sys.executable, "-c", f"import {_CHILD}"], cwd=origin, env=_environment(origin), check=True)
        unbroken = pool.submit(attempt, None, origin, min(seeds, UNBROKEN_SEEDS), first)
        broken = [pool.submit(attempt, one, origin, seeds, first) for one in chosen]
        for future in (unbroken, *broken):
            yield future.result()


def mutate(
    names: Annotated[list[str] | None, typer.Argument(help="only these breaks")] = None,
    seeds: Annotated[int, typer.Option(help="number of seeds after which a break has survived")] = 2_000,
    first: Annotated[int, typer.Option(help="first seed")] = 0,
    processes: Annotated[int, typer.Option(help="number of breaks tried at once")] = 2,
    show: Annotated[bool, typer.Option("--list", help="only list the breaks")] = False,
) -> None:
    """Break the product in many ways, one at a time, and check that the simulation finds each break."""
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
