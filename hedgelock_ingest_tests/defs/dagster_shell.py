"""Dagster's own commands, run at the root of the clone with a separate instance."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.demo import dagster_home
from hedgelock_ingest.sandbox.exchange.keys import KEYS
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.defs.dagster_process import ROOT, DagsterStream
from hedgelock_ingest_tests.sandbox.exchange_fixtures import ExchangeProcess

_DAGSTER = Path(sys.executable).with_name("dagster")


class DagsterShell(DagsterStream):
    """An instance for shell commands: `start` starts the daemon, `dagster` runs a command."""

    def prepare(self) -> None:
        """Create the instance, so that commands can run before the daemon starts."""
        self.folder.mkdir(parents=True, exist_ok=True)
        dagster_home.prepare_home(self.home)

    async def dagster(self, line: str, *, expect: int = 0, timeout_s: float = 120) -> str:
        """Run a `dagster` command, check its exit code, and return its output."""
        found = await asyncio.to_thread(self._run, [_DAGSTER, *line.split()], timeout_s)
        output = f"{found.stdout}\n{found.stderr}"
        assert found.returncode == expect, f"dagster {line} ended with {found.returncode}, expected {expect}\n{output}"
        return output

    async def graphql(self, text: str, variables: Mapping[str, Any], *, timeout_s: float = 120) -> dict[str, Any]:
        """Run a GraphQL query, as the pages do, and return the data of the answer."""
        words = ["-w", "workspace.yaml", "-t", text, "-v", json.dumps(variables)]
        found = await asyncio.to_thread(self._run, [_DAGSTER.with_name("dagster-graphql"), *words], timeout_s)
        answer = next((line for line in found.stdout.splitlines() if line.startswith('{"data"')), None)
        assert answer is not None, f"{found.stdout}\n{found.stderr}"
        data: dict[str, Any] = json.loads(answer)["data"]
        return data

    def _run(self, words: Sequence[str | Path], timeout_s: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words,
            cwd=ROOT,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )


def account_at(exchange: ExchangeProcess, kafka: EmbeddedKafka, prefix: str) -> Mapping[str, str]:
    """Return settings for an exchange with a loan, and for topics with a prefix."""
    key = KEYS["read-only"]
    return {
        "BYBIT_PUBLIC_WS_URL": exchange.public_ws_url,
        "BYBIT_PRIVATE_WS_URL": exchange.private_ws_url,
        "BYBIT_REST_URL": exchange.rest_url,
        "BYBIT_API_KEY": key.api_key,
        "BYBIT_API_SECRET": key.api_secret,
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        **{topic.setting.upper(): prefix + topic.value for topic in Topic},
    }
