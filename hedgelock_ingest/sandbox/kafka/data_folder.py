"""The broker's data folder: locked for one broker at a time, formatted once."""

import fcntl
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from hedgelock_ingest.errors import DataFolderInUse, SandboxError
from hedgelock_ingest.sandbox.kafka.launch import quote
from hedgelock_ingest.sandbox.kafka.properties import LOG_DIRECTORY, Ports, write_properties

# A guard whose parent was killed needs some time to end its broker.
_LOCK_TIMEOUT_S = 3.0
_FORMAT_TIMEOUT_S = 60.0


@contextmanager
def locked(data_directory: Path) -> Iterator[int]:
    """
    Create the folder and lock it; the guard inherits the file descriptor, which keeps the lock after this ends.

    The locked file holds the id of this process.

    Raises:
        DataFolderInUse: Another broker uses the folder.
        SandboxError: It cannot be written.
    """
    try:
        data_directory.mkdir(parents=True, exist_ok=True)
        lock = os.open(data_directory / "in-use", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise SandboxError(f"cannot keep Kafka's data in {data_directory}: {error}") from error
    try:
        _take(lock, data_directory)
        os.truncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        yield lock
    finally:
        os.close(lock)


def _take(lock: int, data_directory: Path) -> None:
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise DataFolderInUse(data_directory, os.pread(lock, 20, 0).decode()) from error
        time.sleep(0.05)


def format_once(data_directory: Path, command: list[str], settings: Mapping[str, str | int]) -> None:
    """
    Format a new log directory as KRaft requires; an interrupted format leaves nothing behind.

    Raises:
        SandboxError: Kafka's own tool failed; the message quotes it.
    """
    if (data_directory / LOG_DIRECTORY).exists():
        return
    unfinished = data_directory / "logs.new"
    shutil.rmtree(unfinished, ignore_errors=True)
    properties = data_directory / "format.properties"
    write_properties(properties, Ports(1, controller=2), settings, log_directory=unfinished.name)
    # Any UUID in base64, but the tool takes one that starts with "-" for an option.
    cluster_id = f"h{secrets.token_hex(10)}A"
    tool = ["kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", properties.name]
    log_file = data_directory / "broker.log"
    with log_file.open("ab") as log:
        log_from = log.tell()
        is_done = _run([*command, *tool], data_directory, log)
    if not is_done:
        raise SandboxError(f"cannot format Kafka's data folder {data_directory}; {quote(log_file, log_from)}")
    properties.unlink()
    unfinished.rename(data_directory / LOG_DIRECTORY)


def _run(command: list[str], data_directory: Path, log: BinaryIO) -> bool:
    try:
        done = subprocess.run(
            command, cwd=data_directory, stdout=log, stderr=log, timeout=_FORMAT_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        log.write(f"Error: {error}\n".encode())
        return False
    return done.returncode == 0
