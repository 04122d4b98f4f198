"""A session that is over hands over to the next run, also when that run has another code server."""

import sys
from collections import Counter
from pathlib import Path

import aiohttp
import dagster as dg
import pytest

from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest.sandbox.kafka.tcp_ports import free_port
from hedgelock_ingest_tests.defs.dagster_process import ROOT, DagsterStream
from hedgelock_ingest_tests.defs.dagster_stage import HANDED_OVER_WITHIN_S, gaps_of, managed, proved
from hedgelock_ingest_tests.processes.stage import eventually

pytestmark = pytest.mark.proof

SESSION_S = 20.0

_RELOAD = """
mutation { reloadRepositoryLocation(repositoryLocationName: "hedgelock_ingest") {
  __typename ... on WorkspaceLocationEntry { loadStatus }
} }
"""


class DagsterDev(DagsterStream):
    """Webserver, daemon and their shared code server, started by `dagster dev`."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        self.web_port = free_port()

    def command(self) -> list[str]:
        return [sys.executable, "-m", "dagster", "dev", "-w", str(ROOT / "workspace.yaml"), "-p", str(self.web_port)]

    async def reload(self) -> None:
        """Do what Reload does in the UI."""
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session,
            session.post(f"http://127.0.0.1:{self.web_port}/graphql", json={"query": _RELOAD}) as answer,
        ):
            reply = await answer.json()
        assert reply["data"]["reloadRepositoryLocation"]["loadStatus"] == "LOADED", reply

    def code_servers(self) -> set[int]:
        """Return the code server processes; a worker is a child of one."""
        return {process.pid for process in self.processes() if "grpc" in process.cmdline()}


async def test_session_continues_through_a_reload_and_hands_over_within_seconds(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """After Reload the run keeps the old code until its session is over; then the next run takes over at once."""
    async with managed(kafka, topic_prefix, tmp_path, DagsterDev) as (stage, stream):
        stream.configure(stream_session_hours=SESSION_S / 3600)
        first = await stream.worker()
        stream.configure()
        with stage.outage():
            old = stream.code_servers()
            await stream.reload()
            assert stream.code_servers() - old, "no code was reloaded"
            second = await stream.worker(after=first.run_id, timeout_s=SESSION_S + 60)
        await eventually("the first one's success", lambda: _has_succeeded(stream, first.run_id))
        await proved(stage, stream, live=second.run_id)
        found = await gaps_of(stage)
        assert max(Counter(gap.feed for gap in found).values()) == 1, f"there were gaps besides the handover: {found}"
        longest_ms = max(gap.to_ms - gap.from_ms for gap in found)
        assert longest_ms < HANDED_OVER_WITHIN_S * 1000, f"the longest of {len(found)} gaps took {longest_ms} ms"


async def _has_succeeded(stream: DagsterStream, run_id: str) -> bool:
    return stream.status_of(run_id) is dg.DagsterRunStatus.SUCCESS
