"""`dagster dev` in a fresh clone, without settings and without Kafka."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from hedgelock_ingest.sandbox.kafka.tcp_ports import free_port
from hedgelock_ingest_tests.defs.dagster_process import ROOT
from hedgelock_ingest_tests.processes.stage import eventually
from hedgelock_ingest_tests.processes.stream_process import SETTINGS_BEGIN_WITH

pytestmark = pytest.mark.proof

_MARK = "STARTED_BY_THE_TEST_IN"
_IN_A_CLONE = ("hedgelock_ingest", "config", "dagster.yaml", "pyproject.toml", "workspace.yaml")
_NOWHERE = "127.0.0.1:1"
_LOADED = "{ workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError { __typename } } } } }"
_RUNS = '{ runsOrError(filter: {pipelineName: "stream"}) { ... on Runs { results { id status } } } }'
_LOG = '{ logsForRun(runId: "%s") { ... on EventConnection { events { ... on LogMessageEvent { message } } } } }'


class Dev:
    """`dagster dev` in a separate clone; `folder` marks all processes that it starts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{free_port()}"
        # The defaults may point to a running Kafka or a used port; all other settings are unset.
        self._own = {"KAFKA_BOOTSTRAP_SERVERS": _NOWHERE, "MONITORING_PORT": str(free_port())}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it in a new session, as in a separate terminal."""
        for name in _IN_A_CLONE:
            (self.folder / name).symlink_to(ROOT / name)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS_BEGIN_WITH)}
        kept.pop("DAGSTER_HOME", None)
        with (self.folder / "dev.log").open("wb") as log:
            self._process = subprocess.Popen(
                [Path(sys.executable).with_name("dagster"), "dev", "-p", self.url.rpartition(":")[2]],
                cwd=self.folder,
                env={**kept, _MARK: str(self.folder), **self._own},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def press_ctrl_c(self) -> None:
        """Interrupt the whole process group, as a terminal does."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGINT)

    def processes(self) -> list[str]:
        """List the live processes that it started, directly or indirectly."""
        return [" ".join(process.cmdline()) for process in self._living()]

    def end(self) -> None:
        """Kill the remaining processes."""
        for process in self._living():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        if self._process is not None:
            self._process.wait(10)

    def log(self) -> str:
        """Return the end of what it printed."""
        return (self.folder / "dev.log").read_text(errors="replace")[-6_000:]

    def _living(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                is_ours = process.environ().get(_MARK) == str(self.folder)
                if is_ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    """A `dagster dev`, not started; its processes end with the test."""
    found = Dev(tmp_path)
    try:
        yield found
    finally:
        found.end()


async def test_dev_starts_with_nothing_set_and_ctrl_c_leaves_no_process(dev: Dev) -> None:
    """The stream's run is up and reports what is missing; Ctrl-C ends all processes."""
    dev.start()
    await _eventually(dev, "the webserver", lambda: _answers(dev, "server_info"), timeout_s=90)
    entries = (await _graphql(dev, _LOADED))["workspaceOrError"]["locationEntries"]
    assert entries == [{"name": "hedgelock_ingest", "locationOrLoadError": {"__typename": "RepositoryLocation"}}]
    await _eventually(dev, "the run of the stream", lambda: _reports_what_is_missing(dev), timeout_s=120)
    dev.press_ctrl_c()
    await _eventually(dev, "no process", lambda: _is_over(dev), timeout_s=90)
    assert (dev.folder / ".hedgelock" / "dagster").is_dir(), "dagster.yaml was not used"


async def _eventually(dev: Dev, what: str, condition: Any, *, timeout_s: float) -> None:
    try:
        await eventually(what, condition, timeout_s=timeout_s)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{dev.processes()}\n{dev.log()}") from None


async def _answers(dev: Dev, path: str) -> bool:
    await asyncio.sleep(0.5)
    with suppress(aiohttp.ClientError):
        async with aiohttp.ClientSession() as session, session.get(f"{dev.url}/{path}") as answer:
            return answer.status == 200
    return False


async def _reports_what_is_missing(dev: Dev) -> bool:
    """Check that the only run of the stream is up, and that its last line names the missing Kafka."""
    await asyncio.sleep(1)
    runs = (await _graphql(dev, _RUNS))["runsOrError"]["results"]
    assert [run["status"] for run in runs if run["status"] in ("FAILURE", "CANCELED")] == [], dev.log()
    if [run["status"] for run in runs] != ["STARTED"]:
        return False
    events = (await _graphql(dev, _LOG % runs[0]["id"]))["logsForRun"]["events"]
    lines = [event["message"] for event in events if event.get("message", "").startswith(("TROUBLE", "Data flows"))]
    if not lines:
        return False
    assert lines[-1].startswith("TROUBLE: Kafka is away, frames go to the journal: "), lines
    assert _NOWHERE in lines[-1], lines
    return True


async def _is_over(dev: Dev) -> bool:
    await asyncio.sleep(0.5)
    return not await asyncio.to_thread(dev.processes)


async def _graphql(dev: Dev, query: str) -> dict[str, Any]:
    async with aiohttp.ClientSession() as session, session.post(f"{dev.url}/graphql", json={"query": query}) as answer:
        found: dict[str, Any] = (await answer.json())["data"]
        return found
