"""The processes of a round: started with a log of their own, watched, and always ended, by their ids."""

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
    """Say whether the process that started this one is still there."""
    return os.getppid() == _PARENT_AT_START


class Child:
    """One process; leaving the `with` ends it whatever state it is in."""

    def __init__(
        self, name: str, arguments: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.log_file = folder / f"{name}.log"
        inherited = {key: text for key, text in os.environ.items() if not key.startswith(_OURS)}
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
        """Whether it has not ended."""
        return self._process.poll() is None

    def stop(self) -> int:
        """Ask it to end, wait, and insist; give its exit code."""
        if self.is_running:
            self._process.terminate()
        try:
            return self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def wait(self) -> int:
        """Wait until it has ended by itself, and end it if that takes too long."""
        try:
            return self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return self.stop()

    def resident_mb(self) -> float:
        """Memory it holds now."""
        return float(self._usage.memory_info().rss) / 1e6

    def cpu_s(self) -> float:
        """Processor time it has used so far, of all its threads."""
        times = self._usage.cpu_times()
        return float(times.user + times.system)

    def last_words(self) -> str:
        """The end of its log."""
        return f"{self.name} said: " + "\n".join(self.log_file.read_text(errors="replace").splitlines()[-12:])


_OURS = ("BYBIT_", "KAFKA_", "JOURNAL_", "STREAM_", "MONITORING_", "ORDER_BOOK_", "HEDGELOCK_CONFIG")


def _die_with_parent() -> None:
    if _libc:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
