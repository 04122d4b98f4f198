"""The demo as an operator runs it, without Dagster: its output, the data it keeps, and `--fresh`."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hedgelock_ingest.errors import SandboxError
from hedgelock_ingest.sandbox.demo.demo import FOLDER, remove_data
from hedgelock_ingest.sandbox.kafka.data_folder import locked
from hedgelock_ingest_tests.processes.stream_process import SETTINGS_BEGIN_WITH

_TIMEOUT_S = 120


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
    assert output.decode().splitlines()[-1].startswith(f"Ended; data kept in {FOLDER}")
    assert (process.returncode, errors) == (0, b"")
    assert not old.exists()
    assert (tmp_path / FOLDER / "kafka").is_dir()


def test_data_of_a_running_demo_are_not_removed(tmp_path: Path) -> None:
    """A second demo in another terminal must not remove the data that the first one uses."""
    with locked(tmp_path / "kafka"), pytest.raises(SandboxError, match="another broker uses"):
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
