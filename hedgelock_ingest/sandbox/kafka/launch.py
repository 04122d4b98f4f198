"""Start of the broker process under its guard, until it serves or its log shows why it does not."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from hedgelock_ingest.errors import SandboxError
from hedgelock_ingest.sandbox.kafka import guard
from hedgelock_ingest.sandbox.kafka.java import SCRATCH_DIRECTORY
from hedgelock_ingest.sandbox.kafka.tcp_ports import is_serving


class Broker:
    """A broker process, running or ended; its guard runs exactly as long as it."""

    def __init__(self, guarding: subprocess.Popen[bytes], pid: int, log_file: Path, log_from: int) -> None:
        self._guarding = guarding
        self.pid = pid
        self._log_file = log_file
        self._log_from = log_from

    def is_alive(self) -> bool:
        """Whether the process exists, frozen or not."""
        return self._guarding.poll() is None

    def ask_to_end(self) -> None:
        """Send SIGTERM."""
        self._guarding.terminate()

    def wait(self, timeout_s: float | None = None) -> None:
        """Return when the broker has ended; raises subprocess.TimeoutExpired."""
        self._guarding.wait(timeout_s)

    def wait_until_serving(self, port: int, timeout_s: float) -> None:
        """
        Return when the broker leads its partitions.

        Raises:
            SandboxError: It ended, or the timeout passed; the message quotes the log.
        """
        deadline = time.monotonic() + timeout_s
        while not is_serving(port):
            if not self.is_alive():
                raise SandboxError(f"the embedded Kafka ended while it started; {self._log_excerpt()}")
            if time.monotonic() > deadline:
                raise SandboxError(
                    f"the embedded Kafka did not answer on port {port} within {timeout_s:g} s; {self._log_excerpt()}"
                )
            time.sleep(0.03)

    def _log_excerpt(self) -> str:
        return quote(self._log_file, self._log_from)


def launch(command: list[str], data_directory: Path, lock: int, *, is_temporary: bool) -> Broker:
    """Start a broker in its data folder; a temporary folder is removed even if the parent is killed."""
    # Compression codecs are unpacked there, which a killed broker cannot clean up.
    scratch = data_directory / SCRATCH_DIRECTORY
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    log_file = data_directory / "broker.log"
    with log_file.open("ab") as log:
        log_from = log.tell()
        guarding = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", guard.__file__),
                *(str(os.getpid()), str(log_file), str(data_directory) if is_temporary else ""),
                *(*command, "kafka.Kafka", "server.properties"),
            ],
            cwd=data_directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            pass_fds=[lock],
            start_new_session=True,  # Ctrl-C is for us: clients are closed first, then the broker
        )
    assert guarding.stdout
    with guarding.stdout as output:
        pid = output.readline()
    if not pid:
        guarding.wait()
        raise SandboxError(f"the embedded Kafka could not be started; {quote(log_file, log_from)}")
    return Broker(guarding, int(pid), log_file, log_from)


def quote(log_file: Path, start: int = 0) -> str:
    """Return the error lines of the log since `start`, and the log's path."""
    text = log_file.read_bytes()[start:].decode(errors="replace")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("\tat ")]
    errors = [line for line in lines if re.search(r"\b(ERROR|FATAL)\b|Exception|Error:", line)] or lines
    return "\n  ".join([f"its log is {log_file}" + (":" if errors else ", and empty"), *errors[-4:]])
