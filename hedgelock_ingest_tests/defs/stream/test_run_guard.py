"""A run that drains writes heartbeats until it ends."""

import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import dagster as dg
import pytest

from hedgelock_ingest.defs.stream import heartbeats
from hedgelock_ingest.sandbox.kafka.tcp_ports import free_port
from hedgelock_ingest_tests.processes.stage import eventually
from hedgelock_ingest_tests.processes.stream_process import StreamProcess
from hedgelock_ingest_tests.sandbox.exchange_fixtures import exchange_process

STOP_TIMEOUT_S = 12.0

_RUN = """
import sys, time
from dagster import DagsterInstance
from hedgelock_ingest.defs.stream.run_guard import Guard
from hedgelock_ingest.defs.stream.session import StreamSession
from hedgelock_ingest.settings import load_settings
settings = load_settings()
session = StreamSession(settings, "main")
with DagsterInstance.from_config(sys.argv[1]) as instance:
    guard = Guard(instance, "the-run", session, session_s=3600)
    session.start()
    sys.stdin.readline()
    guard.drain()
"""


@pytest.fixture
async def run(tmp_path: Path) -> AsyncIterator[subprocess.Popen[str]]:
    """Start a session without Kafka, which cannot deliver; it drains when a line is written to its stdin."""
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    async with exchange_process(rate=200) as exchange:
        stream = StreamProcess(
            tmp_path,
            {
                "BYBIT_PUBLIC_WS_URL": exchange.public_ws_url,
                "BYBIT_REST_URL": exchange.rest_url,
                "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}",
                "STOP_TIMEOUT": f"{STOP_TIMEOUT_S}",
            },
        )
        process = _start(stream)
        try:
            await eventually("frames", lambda: _has_frames(stream))
            yield process
        finally:
            process.kill()
            process.communicate()


def _start(stream: StreamProcess) -> subprocess.Popen[str]:
    program = [sys.executable, "-c", _RUN, str(stream.folder)]
    with (stream.folder / "run.log").open("w") as log:
        return subprocess.Popen(
            program, env=stream.environment(), stdin=subprocess.PIPE, stdout=log, stderr=log, text=True
        )


@pytest.mark.proof
async def test_run_that_drains_keeps_writing_heartbeats(run: subprocess.Popen[str], tmp_path: Path) -> None:
    """Without Kafka it drains until its deadline; without heartbeats it would be treated as dead meanwhile."""
    assert run.stdin is not None
    run.stdin.write("\n")
    run.stdin.flush()
    began_s = time.time()
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:

        async def has_heartbeat() -> bool:
            heartbeat = heartbeats.find(instance, "main")
            return heartbeat is not None and heartbeat.at_s > began_s + STOP_TIMEOUT_S / 2

        await eventually("a heartbeat late in the drain", has_heartbeat, timeout_s=STOP_TIMEOUT_S + 10)


async def _has_frames(stream: StreamProcess) -> bool:
    status, found = await stream.page("stats")
    return status == 200 and found["frames_received"] > 0
