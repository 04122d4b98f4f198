"""Dagster as in production, with a separate instance: daemon, code server and run workers as processes."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import dagster as dg
import psutil

from hedgelock_ingest.defs.stream import heartbeats
from hedgelock_ingest.defs.stream.jobs import JOB_NAME
from hedgelock_ingest.sandbox.children import start_tied
from hedgelock_ingest_tests.processes.stage import eventually
from hedgelock_ingest_tests.processes.stream_process import StreamProcess

ROOT = Path(__file__).resolve().parents[2]
SHARD = "main"
SENSOR = "keep_streaming"


class Tick(NamedTuple):
    """One tick of the sensor."""

    at_s: float
    status: str
    is_completed: bool
    reason: str
    error: str


class DagsterStream(StreamProcess):
    """The stream as a Dagster run: `start` starts the daemon, whose sensor starts the run."""

    instance_file = ROOT / "dagster.yaml"
    _others: Sequence[subprocess.Popen[bytes]] = ()

    @property
    def home(self) -> Path:
        """The folder of this instance's storage."""
        return self.folder / "dagster"

    def start(self) -> None:
        """Start the daemon, which starts the code server."""
        self.starts += 1
        self.home.mkdir(parents=True, exist_ok=True)
        text = self.instance_file.read_text().replace(".hedgelock/dagster", str(self.home / "storage"))
        (self.home / "dagster.yaml").write_text(text)
        with self.instance():  # creates the storage: two processes that create it in SQLite at once would corrupt it
            self._process = self._started(self.log_file)

    def start_another(self) -> Path:
        """Start a second daemon on the same storage, and return its log file."""
        log_file = self.folder / "another.log"
        self._others = [*self._others, self._started(log_file)]
        return log_file

    def end_daemon(self, number: signal.Signals) -> None:
        """End the daemon of the last start, and nothing else."""
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(30)

    def command(self) -> list[str]:
        """Return the command that `start` runs."""
        return [sys.executable, "-m", "dagster._daemon", "run", "-w", str(ROOT / "workspace.yaml")]

    def _started(self, log_file: Path) -> subprocess.Popen[bytes]:
        with log_file.open("ab") as log:
            return start_tied(self.command(), environment=self.environment(), stdout=log, stderr=log)

    def environment(self) -> dict[str, str]:
        """Return the environment of the daemon and of all that it starts."""
        return {**super().environment(), "DAGSTER_HOME": str(self.home), "PYTHONPATH": str(ROOT)}

    def configure(self, **settings: object) -> None:
        """Rewrite the settings file; runs that start from now on read it."""
        lines = [f"{name}: {value}\n" for name, value in {"bybit_testnet": "true", **settings}.items()]
        (self.folder / "collector.yaml").write_text("".join(lines))

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        """Open the storage that the processes use."""
        with dg.DagsterInstance.from_config(str(self.home)) as instance:
            yield instance

    def runs(self) -> list[dg.RunRecord]:
        """List the stream's runs, newest first."""
        with self.instance() as instance:
            return list(instance.get_run_records(dg.RunsFilter(job_name=JOB_NAME)))

    def status_of(self, run_id: str) -> dg.DagsterRunStatus:
        """Return the status of a run."""
        with self.instance() as instance:
            run = instance.get_run_by_id(run_id)
        assert run is not None
        return run.status

    def live_runs(self) -> list[str]:
        """Return the ids of the unfinished runs."""
        return [record.dagster_run.run_id for record in self.runs() if not record.dagster_run.is_finished]

    def tick_reasons(self, *, since_s: float) -> list[str]:
        """Return the skip reasons of ticks since a time, newest first; "" for a tick that started a run."""
        return [tick.reason for tick in self._ticks(since_s) if tick.is_completed]

    def _ticks(self, since_s: float) -> list[Tick]:
        with self.instance() as instance:
            (state,) = [each for each in instance.all_instigator_state() if each.instigator_name == SENSOR]
            ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, after=since_s)
        return [
            Tick(tick.timestamp, tick.status.value, tick.is_completed, tick.skip_reason or "", str(tick.error or ""))
            for tick in ticks
        ]

    async def until_tick_says(self, text: str, *, timeout_s: float = 60) -> str:
        """Wait until the reason of a tick from now on contains a text, and return the reason."""
        since_s = time.time()

        def matching_reason() -> str | None:
            return next((each for each in self.tick_reasons(since_s=since_s) if text in each), None)

        return await self._until(f'a tick that says "{text}"', matching_reason, timeout_s)

    async def _until(self, what: str, find: Callable[[], str | None], timeout_s: float) -> str:
        since_s = time.time()
        while (found := await asyncio.to_thread(find)) is None:
            waited_s = time.time() - since_s
            if waited_s > timeout_s:
                raise AssertionError(
                    f"{what}: not within {timeout_s:g} s\n{await asyncio.to_thread(self.diagnosis, since_s)}"
                )
            await asyncio.sleep(_pause_s(waited_s))
        return found

    def launches(self, run_id: str) -> int:
        """Count the launches of a run; Dagster fails a run that two daemons launch."""
        with self.instance() as instance:
            return len(instance.all_logs(run_id, of_type=dg.DagsterEventType.PIPELINE_STARTING))

    def diagnosis(self, since_s: float) -> str:
        """Return ticks since a time, runs, and the ends of the daemons' logs, for a failure message."""
        parts = {
            "ticks, the newest first": [
                f"{tick.at_s - since_s:.1f} s {tick.status}: {tick.reason}{tick.error}" for tick in self._ticks(since_s)
            ],
            "runs, the newest first": [
                f"{record.dagster_run.run_id[:8]} {record.dagster_run.status.value}" for record in self.runs()
            ],
            **{log.name: log.read_text(errors="replace").splitlines()[-40:] for log in self._logs},
        }
        return "\n".join(line for name, lines in parts.items() for line in [f"-- {name}", *lines])

    @property
    def _logs(self) -> list[Path]:
        return [self.log_file, *sorted(self.folder.glob("another*.log"))]

    def heartbeat(self) -> heartbeats.Heartbeat | None:
        """Return the shard's last heartbeat."""
        with self.instance() as instance:
            return heartbeats.find(instance, SHARD)

    def cancel(self, run_id: str) -> None:
        """Terminate a run, as the UI does."""
        with self.instance() as instance:
            instance.run_coordinator.cancel_run(run_id)

    def mark_as_failed(self, run_id: str) -> None:
        """Mark a run as failed, as an operator may; its process is not signalled."""
        with self.instance() as instance:
            run = instance.get_run_by_id(run_id)
            assert run is not None
            instance.report_run_failed(run, "marked by hand")

    async def next_worker_pid(self, known: Set[int]) -> int:
        """Wait for the process of a new run before the run reports its start, and return its pid."""

        def new_workers() -> list[int]:
            workers = [each for each in self.processes() if _is_worker(each)]
            return [each.pid for each in workers if each.pid not in known]

        async def has_started() -> bool:
            return bool(await asyncio.to_thread(new_workers))

        await eventually("a worker", has_started, timeout_s=60)
        return new_workers()[0]

    async def worker(self, *, after: str | None = None, timeout_s: float = 60) -> heartbeats.Heartbeat:
        """Wait until a run other than `after` carries the shard and is ready; return its heartbeat."""
        began_s = time.monotonic()
        while True:
            heartbeat = await asyncio.to_thread(self.heartbeat)
            if heartbeat is not None and heartbeat.run_id != after and (await self.page("ready"))[0] == 200:
                return heartbeat
            waited_s = time.monotonic() - began_s
            if waited_s > timeout_s:
                statuses = [record.dagster_run.status.value for record in self.runs()]
                raise AssertionError(f"no live run within {timeout_s:g} s; runs: {statuses}\n{self.log(60)}")
            await asyncio.sleep(_pause_s(waited_s))

    def end(self) -> None:
        """End all processes that were started here."""
        with suppress(Exception):
            for record in self.runs():
                if not record.dagster_run.is_finished:
                    self.cancel(record.dagster_run.run_id)
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
            self._process.kill()
        self.kill_all()
        for other in self._others:
            other.wait()

    def kill_all(self) -> None:
        """Kill all processes at once, as a power loss does: none can report the end of another."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        if self._process is not None:
            self._process.wait()

    def processes(self) -> list[psutil.Process]:
        """List the processes of this instance, oldest first: daemon, code servers, workers."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("DAGSTER_HOME") == str(self.home) and process.pid != os.getpid():
                    found.append(process)
        return sorted(found, key=lambda process: process.create_time())


def _is_worker(process: psutil.Process) -> bool:
    try:
        return any("spawn_main" in word for word in process.cmdline())
    except psutil.Error:  # it ended after it was listed
        return False


def _pause_s(waited_s: float) -> float:
    """
    Return the pause before the next check: a tenth of the time waited so far, from 0.05 to 0.5 s.

    Checks slow down the processes under test: opening Dagster's storage costs 25 ms.
    """
    return min(0.5, max(0.05, waited_s / 10))
