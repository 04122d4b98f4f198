"""Child processes of a round: each has its own log, is watched, and is always ended, by its id."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

ROOT = Path(__file__).resolve().parent.parent
_PARENT_AT_START = os.getppid()
_STOP_TIMEOUT_S = 15.0
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def parent_is_alive() -> bool:
    """Return whether the process that started this one is still running."""
    return os.getppid() == _PARENT_AT_START


class Child:
    """A child process; leaving the `with` block ends it whatever state it is in."""

    def __init__(
        self, name: str, arguments: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.log_file = folder / f"{name}.log"
        inherited = {key: text for key, text in os.environ.items() if not key.startswith(_SETTING_PREFIXES)}
        with self.log_file.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=folder,
                env={**inherited, "PYTHONPATH": str(ROOT), **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,  # safe here: this process has one thread
            )
        self._usage = psutil.Process(self._process.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def is_running(self) -> bool:
        """Whether the process is running."""
        return self._process.poll() is None

    def stop(self) -> int:
        """Terminate the process, kill it after a timeout, and return its exit code."""
        if self.is_running:
            self._process.terminate()
        try:
            return self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def wait(self) -> int:
        """Wait until the process ends, and stop it after a timeout; return its exit code."""
        try:
            return self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return self.stop()

    def resident_mb(self) -> float:
        """Return its resident memory, in MB."""
        return float(self._usage.memory_info().rss) / 1e6

    def cpu_s(self) -> float:
        """Return the processor time of all its threads so far, in seconds."""
        times = self._usage.cpu_times()
        return float(times.user + times.system)

    def log_tail(self) -> str:
        """Return the last lines of its log."""
        return f"log of {self.name}: " + "\n".join(self.log_file.read_text(errors="replace").splitlines()[-12:])


_SETTING_PREFIXES = ("BYBIT_", "KAFKA_", "JOURNAL_", "STREAM_", "MONITORING_", "ORDER_BOOK_", "HEDGELOCK_CONFIG")


def _die_with_parent() -> None:
    if _libc:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
