"""Dagster as people run it, with an instance of its own: daemon, code server and run workers as processes."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg
import psutil

from hedgelock_ingest.defs import presence
from hedgelock_ingest.defs.streaming import JOB_NAME
from hedgelock_ingest.sandbox.children import start_tied
from hedgelock_ingest_tests.scenarios.stream_process import StreamProcess

ROOT = Path(__file__).resolve().parents[2]
SHARD = "main"


class DagsterStream(StreamProcess):
    """The stream as a run of Dagster's: `start` starts the daemon, and the sensor does the rest."""

    @property
    def home(self) -> Path:
        """Where this instance stores everything."""
        return self.folder / "dagster"

    def start(self) -> None:
        """Start the daemon, which starts the code server."""
        self.lives += 1
        self.home.mkdir(parents=True, exist_ok=True)
        text = (ROOT / "dagster.yaml").read_text().replace(".hedgelock/dagster", str(self.home / "storage"))
        (self.home / "dagster.yaml").write_text(text)
        with self.instance():  # makes the storage: where two processes make SQLite's at once, it is broken
            pass
        program = [sys.executable, "-m", "dagster._daemon", "run", "-w", str(ROOT / "workspace.yaml")]
        with self.log_file.open("ab") as log:
            self._process = start_tied(program, environment=self.environment(), stdout=log, stderr=log)

    def environment(self) -> dict[str, str]:
        """Return the environment of the daemon and of all that it starts."""
        return {**super().environment(), "DAGSTER_HOME": str(self.home), "PYTHONPATH": str(ROOT)}

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
        """Say how far a run has come."""
        with self.instance() as instance:
            run = instance.get_run_by_id(run_id)
        assert run is not None
        return run.status

    def sign(self) -> presence.SignOfLife | None:
        """Give the shard's last sign of life."""
        with self.instance() as instance:
            return presence.find(instance, SHARD)

    def cancel(self, run_id: str) -> None:
        """Do what Terminate does in the UI."""
        with self.instance() as instance:
            instance.run_coordinator.cancel_run(run_id)

    async def worker(self, *, after: str | None = None, timeout_s: float = 60) -> presence.SignOfLife:
        """Wait until a run carries the shard, another one than `after`, and frames flow into Kafka."""
        began_s = time.monotonic()
        while True:
            sign = await asyncio.to_thread(self.sign)
            if sign is not None and sign.run_id != after and (await self.page("ready"))[0] == 200:
                return sign
            if time.monotonic() - began_s > timeout_s:
                statuses = [record.dagster_run.status.value for record in self.runs()]
                raise AssertionError(f"no live run within {timeout_s:g} s; runs: {statuses}\n{self.log(60)}")
            await asyncio.sleep(0.2)

    def end(self) -> None:
        """End everything that was started here, and see that nothing is left."""
        with suppress(Exception):
            for record in self.runs():
                if not record.dagster_run.is_finished:
                    self.cancel(record.dagster_run.run_id)
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
            self._process.kill()
        for process in self._ours():
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def _ours(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("DAGSTER_HOME") == str(self.home) and process.pid != os.getpid():
                    found.append(process)
        return found
