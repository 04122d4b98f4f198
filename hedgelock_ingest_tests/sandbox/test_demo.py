"""The demo as an operator runs it, without Dagster: its output, the data it keeps, and `--fresh`."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import threading
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import TracebackType

import pytest
from rich.console import Console

from hedgelock_ingest.errors import SandboxError
from hedgelock_ingest.sandbox.demo.demo import FOLDER, read_statistics, remove_data
from hedgelock_ingest.sandbox.demo.record_counts import RecordCounts
from hedgelock_ingest.sandbox.demo.view import DemoState, commands_of, line_of, view_of
from hedgelock_ingest.sandbox.kafka.data_folder import locked
from hedgelock_ingest_tests.processes.stream_process import SETTINGS_BEGIN_WITH

_TIMEOUT_S = 120


def a_state() -> DemoState:
    """Return the state of a demo whose stream has just started."""
    statistics = {
        "receive_to_acknowledged": {"percentiles_ms": {"p50": None, "p99": None}},
        "journal": {"lag_frames": 0, "backlog_bytes": 0},
        "kafka": {"state": "closed", "reason": None},
        "lines": [],
        **dict.fromkeys(("frames_per_s", "frames_acknowledged", "copies_dropped"), 0),
        "gaps": 2,
        "dead_letters": 1,
    }
    return DemoState(
        statistics=statistics,
        counts=RecordCounts(books="books", prices="prices", accounts="accounts"),
        stream_pid=17,
        starts=1,
        bootstrap_servers="127.0.0.1:9092",
        rest_url="http://127.0.0.1:9001",
        places=[("http://127.0.0.1:8000/docs", "the stream")],
        folder=".hedgelock/demo",
        log=".hedgelock/demo/demo.log",
    )


class StatsServer:
    """A server on a free port that answers every request with a JSON object."""

    def __enter__(self) -> int:
        """Start it, and return its port."""
        self._server = HTTPServer(("127.0.0.1", 0), _Stats)
        self._thread = threading.Thread(target=partial(self._server.serve_forever, 0.01))
        self._thread.start()
        return self._server.server_port

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Stats(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"gaps": 0}')

    def log_message(self, *_: object) -> None:
        """Suppress the access log."""


def test_commands_are_the_same_in_the_display_and_in_a_log() -> None:
    """Who has no terminal finds them as well; figures that are not there yet are a dash."""
    now = a_state()
    assert [what for what, _ in commands_of(now)] == ["Break it", "records", "a fault", "data, log"]
    console = Console(record=True, width=200, file=io.StringIO())
    console.print(view_of(now))
    shown = console.export_text()
    assert all(text in shown for _, text in commands_of(now))
    assert "p50 -" in shown
    assert "None" not in shown
    assert "p50 -, p99 -, lag 0 frames, 2 gaps, 1 dead letters; 0 records" in line_of(now)


def test_statistics_are_read_directly_whatever_proxies_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A company's proxy does not reach 127.0.0.1 of this machine."""
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with StatsServer() as port:
        assert read_statistics(port) == {"gaps": 0}
        dockerfile = (Path(__file__).parents[2] / "Dockerfile").read_text()
        [check] = [line.strip() for line in dockerfile.splitlines() if line.startswith("    CMD ")]
        _, _, script = json.loads(check.removeprefix("CMD "))
        monkeypatch.setenv("MONITORING_PORT", str(port))
        assert subprocess.run([sys.executable, "-I", "-c", script], check=False).returncode == 0


async def test_demo_reports_its_data_folder_and_fresh_removes_old_data(tmp_path: Path) -> None:
    """After Ctrl-C the demo prints where the data are; `--fresh` removes what an earlier demo stored."""
    old = tmp_path / FOLDER / "journal" / "old"
    old.parent.mkdir(parents=True)
    old.touch()
    async with _demo(tmp_path, "--fresh") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        async with asyncio.timeout(_TIMEOUT_S):
            while b"frames/s into Kafka" not in (line := await process.stdout.readline()):
                assert line, (await process.stderr.read()).decode()
            process.send_signal(signal.SIGINT)
            output, errors = await process.communicate()
    *_, ending, last = output.decode().splitlines()
    assert ending.startswith("Ending: ")
    assert last.startswith(f"Ended; data kept in {FOLDER} for the next run; make demo ARGS=--fresh starts")
    assert (line.split(b" into")[0].split()[-1], b" gaps, " in line) == (b"frames/s", True)
    assert (process.returncode, errors) == (0, b"")
    assert not old.exists()
    assert (tmp_path / FOLDER / "kafka").is_dir()


def test_data_of_a_running_demo_are_not_removed(tmp_path: Path) -> None:
    """A second demo in another terminal must not remove the data that the first one uses."""
    with locked(tmp_path / "kafka"), pytest.raises(SandboxError, match=f"another demo.*{os.getpid()}"):
        remove_data(tmp_path)
    assert (tmp_path / "kafka").is_dir()
    remove_data(tmp_path)
    assert not tmp_path.exists()


@asynccontextmanager
async def _demo(folder: Path, *arguments: str) -> AsyncIterator[Process]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS_BEGIN_WITH)}
    command = [sys.executable, "-m", "hedgelock_ingest", "demo", "--no-dagster", *arguments]
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, env=kept, stdout=PIPE, stderr=PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
