"""One Kafka broker as a child process: start, stop, and faults for tests."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from hedgelock_ingest.errors import SandboxError
from hedgelock_ingest.sandbox.kafka.data_folder import format_once, locked
from hedgelock_ingest.sandbox.kafka.java import kafka_command
from hedgelock_ingest.sandbox.kafka.launch import Broker, launch
from hedgelock_ingest.sandbox.kafka.properties import Ports, write_properties
from hedgelock_ingest.sandbox.kafka.tcp_ports import check_free, free_port

_STOP_TIMEOUT_S = 20.0
_SUSPEND_TIMEOUT_S = 10.0
_FREE_PORT_ATTEMPTS = 3


class EmbeddedKafka:
    """
    A real broker on the loopback interface; a context manager, or `start()` and `stop()`.

    It ends within a second of this process, however that ends. Every method blocks, for seconds where a
    broker starts: call `await asyncio.to_thread(kafka.restart)` in an event loop.

    Args:
        data_directory: Kept, and reused if it holds data. None means a temporary one, removed at stop.
        port: 0 chooses a free one, which stays the same over `restart`.
        settings: Broker settings beyond ours, such as `{"message.max.bytes": 2_000_000}`.
        timeout_s: How long a start may take once the jars are there.
    """

    def __init__(
        self,
        data_directory: Path | None = None,
        port: int = 0,
        *,
        settings: Mapping[str, str | int] | None = None,
        timeout_s: float = 60.0,
    ) -> None:
        self._is_temporary = data_directory is None
        self._data_directory = data_directory.absolute() if data_directory else None
        self._port = port
        self._settings = dict(settings or {})
        self._timeout_s = timeout_s
        self._broker: Broker | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def data_directory(self) -> Path:
        """The folder of topics, settings and log; a temporary one exists from start to stop."""
        if self._data_directory is None:
            raise SandboxError("the embedded Kafka has no data folder yet; start it first")
        return self._data_directory

    @property
    def log_file(self) -> Path:
        """The broker's warnings and errors; at most 20 MB together with `broker.log.1`."""
        return self.data_directory / "broker.log"

    @property
    def bootstrap_servers(self) -> str:
        """The address for clients; before a start without a chosen port it ends with 0."""
        return f"127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """The Java process of the last start."""
        if self._broker is None:
            raise SandboxError("the embedded Kafka has no process yet; start it first")
        return self._broker.pid

    @property
    def is_running(self) -> bool:
        """Whether the process exists, frozen or not."""
        return self._broker is not None and self._broker.is_alive()

    def start(self) -> None:
        """
        Return when the broker answers and leads its partitions; do nothing if it runs.

        Raises:
            SandboxError: No Java or no jars, the port is taken, another broker uses the data folder, or this
                broker did not start: then the message quotes the log, which is kept.
        """
        if self.is_running:
            return
        command = kafka_command()
        if self._data_directory is None:
            self._data_directory = Path(tempfile.mkdtemp(prefix="hedgelock-kafka-"))
        try:
            self._start(command)
        except BaseException as error:
            self.kill()
            log_has_cause = isinstance(error, SandboxError) and self.log_file.exists()
            if not log_has_cause:
                self._remove_temporary_data()
            raise

    def stop(self) -> None:
        """End the broker and wait for it, cleanly if its data are kept. Harmless when it has ended."""
        if self._is_temporary:
            self.kill()
        else:
            self._end_cleanly()
        self._remove_temporary_data()

    def restart(self) -> None:
        """Start again on the same data and port, after a clean stop if it still runs; raises like `start`."""
        self._end_cleanly()
        self.start()

    def kill(self) -> None:
        """End the broker with SIGKILL; data and port stay for `restart`. Harmless when it has ended."""
        if self.is_running:
            self._send(signal.SIGKILL)
            self.wait()

    def freeze(self) -> None:
        """
        Suspend the broker with SIGSTOP: connections stay open and the system accepts more, nothing answers.

        Raises:
            SandboxError: Some of its threads were not suspended in time.
        """
        self._send(signal.SIGSTOP)
        until_s = time.monotonic() + _SUSPEND_TIMEOUT_S
        # On a busy machine a thread may run a little longer, and answer a request that is sent now.
        while any(map(_is_running, Path(f"/proc/{self.pid}/task").iterdir())):
            if time.monotonic() > until_s:
                raise SandboxError(f"the embedded Kafka was not suspended within {_SUSPEND_TIMEOUT_S:g} s")
            time.sleep(0.001)

    def thaw(self) -> None:
        """Resume a frozen broker with SIGCONT."""
        self._send(signal.SIGCONT)

    def wait(self) -> None:
        """Return when the broker has ended, for whatever reason."""
        if self._broker:
            self._broker.wait()

    def _start(self, command: list[str]) -> None:
        with locked(self.data_directory) as lock:
            for attempts_left in reversed(range(_FREE_PORT_ATTEMPTS)):
                if self._port:
                    check_free(self._port)
                port = self._port or free_port()
                ports = Ports(port, controller=free_port(other_than=port))
                format_once(self.data_directory, command, self._settings)
                write_properties(self.data_directory / "server.properties", ports, self._settings)
                self._broker = launch(command, self.data_directory, lock, is_temporary=self._is_temporary)
                try:
                    self._broker.wait_until_serving(ports.broker, self._timeout_s)
                except SandboxError as error:
                    # Another process has taken the port since it was found free.
                    if "Address already in use" in str(error) and attempts_left:
                        continue
                    raise
                self._port = ports.broker
                return

    def _end_cleanly(self) -> None:
        if self._broker is None or not self.is_running:
            return
        self.thaw()
        self._broker.ask_to_end()
        try:
            self._broker.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def _send(self, number: signal.Signals) -> None:
        if not self.is_running:
            raise SandboxError(f"the embedded Kafka does not run: cannot send {number.name}")
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def _remove_temporary_data(self) -> None:
        if self._is_temporary and self._data_directory:
            shutil.rmtree(self._data_directory, ignore_errors=True)
            self._data_directory = None


def _is_running(thread: Path) -> bool:
    """Return whether a thread is not suspended; its state follows its name in parentheses (Linux, proc(5))."""
    try:
        return (thread / "stat").read_text().rpartition(")")[2].split()[0] not in "TtZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
