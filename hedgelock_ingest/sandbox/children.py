"""Child processes of the demo, which end with it; what they have started ends only if the demo ends them in order."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO

# Run in the child before the program: ask Linux for SIGTERM when the parent ends; exit if it has ended already.
_RUN_WITH_PARENT = (
    "import ctypes, os, sys; parent = int(sys.argv[1]); "
    "ctypes.CDLL(None).prctl(1, 15) if sys.platform == 'linux' else None; "
    "os.getppid() == parent or os._exit(1); os.execv(sys.argv[2], sys.argv[2:])"
)


def start_tied(
    command: Sequence[str], *, environment: Mapping[str, str], stdout: int | IO[bytes], stderr: IO[bytes]
) -> subprocess.Popen[bytes]:
    """
    Start a program that ends when this process ends, even by kill -9; call it from the main thread.

    Source of the death signal, which follows the thread that started the child: Linux, prctl(2), PR_SET_PDEATHSIG.
    """
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _RUN_WITH_PARENT, str(os.getpid()), *command],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,  # Ctrl-C is for the demo, which ends its children in order
    )


def end(child: subprocess.Popen[bytes], timeout_s: float) -> None:
    """Send SIGTERM to a child, and SIGKILL when it has not ended in time."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        child.send_signal(signal.SIGCONT)  # a stopped process would not receive the signal
    try:
        child.wait(timeout_s)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def end_all(child: subprocess.Popen[bytes], timeout_s: float) -> None:
    """End a child, then all processes that it started: Dagster's runs outlive their code server. Kill what remains."""
    end(child, timeout_s)
    deadline_s = time.monotonic() + timeout_s
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
        while time.monotonic() < deadline_s:
            os.killpg(child.pid, 0)
            time.sleep(0.1)
        os.killpg(child.pid, signal.SIGKILL)
