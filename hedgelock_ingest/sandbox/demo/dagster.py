"""Dagster in the demo: an instance of its own, `dagster dev` as one child, and an end that leaves no process."""

import sys
from pathlib import Path

from hedgelock_ingest.errors import SandboxError

_ROOT = Path(__file__).resolve().parents[2]


def prepare_home(home: Path) -> None:
    """
    Write an instance whose storage stands in `home` alone.

    Raises:
        SandboxError: There is no `dagster.yaml` beside the package.
    """
    template = _ROOT / "dagster.yaml"
    if not template.exists():
        raise SandboxError(f"{template} is missing: run the demo from a clone, or with --no-dagster")
    home.mkdir(parents=True, exist_ok=True)
    text = template.read_text().replace(".hedgelock/dagster", str(home.resolve() / "storage"))
    (home / "dagster.yaml").write_text(text)


def command(port: int) -> list[str]:
    """
    Give the command of `dagster dev`.

    With the older way of code servers, since one that dies is started again: the newer way leaves the location dead
    until someone presses Reload.
    """
    workspace = str(_ROOT / "workspace.yaml")
    dev = [sys.executable, "-m", "dagster", "dev", "-w", workspace, "-p", str(port)]
    return [*dev, "--use-legacy-code-server-behavior"]


def environment(home: Path) -> dict[str, str]:
    """Give what `dagster dev` needs beside the settings."""
    return {"DAGSTER_HOME": str(home.resolve()), "PYTHONPATH": str(_ROOT)}


def owner_of(journal: Path) -> int | None:
    """Name the process that carries the stream, by the journal's lock; None if there never was one."""
    try:
        return int((journal / "journal.lock").read_text())
    except (OSError, ValueError):
        return None
