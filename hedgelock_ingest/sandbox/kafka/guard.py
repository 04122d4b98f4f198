"""
Keep one broker alive exactly as long as its parent; run as a script, with the standard library alone.

    guard.py PARENT_PID LOG_FILE FOLDER_TO_REMOVE COMMAND...

It is a separate process, since a parent killed with -9 cannot clean up, and Linux's death signal follows the
thread that started a child, which may end long before its process. It prints the broker's pid, ends with the
broker, and forwards SIGTERM to it. When the parent ends the guard kills the broker and removes the folder, if
one is named.
"""

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

TICK_S = 0.2
LOG_LIMIT_BYTES = 10_000_000
PR_SET_PDEATHSIG = 1


def main() -> int:
    parent_pid, log_file, folder_to_remove = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    if os.getppid() != parent_pid:
        return 1
    broker_pipe, held_by_broker = os.pipe()
    with log_file.open("ab") as log:
        broker = start(sys.argv[4:], log.fileno(), held_by_broker)
    os.close(held_by_broker)
    signal.signal(signal.SIGTERM, lambda *_: broker.terminate())
    os.write(1, f"{broker.pid}\n".encode())
    os.close(1)
    while os.getppid() == parent_pid:
        # Readable means closed: the broker is gone.
        if select.select([broker_pipe], [], [], TICK_S)[0]:
            return broker.wait()
        bound(log_file)
    broker.kill()
    broker.wait()
    if folder_to_remove:
        shutil.rmtree(folder_to_remove, ignore_errors=True)
    return 1


def start(command: list[str], log: int, held_by_broker: int) -> subprocess.Popen[bytes]:
    """Start the broker so that it ends with this process, where the system supports that."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def end_with_guard() -> None:
        if libc:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=[held_by_broker],
        preexec_fn=end_with_guard,  # safe here: this process has one thread
    )


def bound(log_file: Path) -> None:
    """Move the log's text to `.1` when it is too long; the broker appends, so it continues at the start."""
    if log_file.stat().st_size > LOG_LIMIT_BYTES:
        shutil.copyfile(log_file, f"{log_file}.1")
        os.truncate(log_file, 0)


if __name__ == "__main__":
    sys.exit(main())
