"""Dagster in the demo: its own instance, and `dagster dev` as one child process."""

import sys
from pathlib import Path

from hedgelock_ingest.errors import SandboxError

_ROOT = Path(__file__).resolve().parents[3]


def prepare_home(home: Path) -> None:
    """
    Write an instance that stores everything in `home`.

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
    Return the command of `dagster dev`.

    It uses the older kind of code server, which Dagster restarts when it dies: with the newer kind the code location
    stays unavailable until an operator presses Reload.
    """
    workspace = str(_ROOT / "workspace.yaml")
    dev = [sys.executable, "-m", "dagster", "dev", "-w", workspace, "-p", str(port)]
    return [*dev, "--use-legacy-code-server-behavior"]


def environment(home: Path) -> dict[str, str]:
    """Return the environment variables that `dagster dev` needs besides the settings."""
    return {"DAGSTER_HOME": str(home.resolve()), "PYTHONPATH": str(_ROOT)}


def stream_pid(journal: Path) -> int | None:
    """Return the pid of the stream's carrier from the journal's lock; None if there was never one."""
    try:
        return int((journal / "journal.lock").read_text())
    except (OSError, ValueError):
        return None
