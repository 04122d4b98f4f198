"""Runs of the scheduled assets in this process, and their results."""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from hedgelock_ingest.defs.polls import assets, jobs
from hedgelock_ingest.defs.polls.slots import LEAD_MS, WINDOW_MS
from hedgelock_ingest.defs.resources import BybitResource, IngestResource, KafkaResource
from hedgelock_ingest.defs.topics.assets import polled_key
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.exchange.keys import KEYS
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.sandbox.exchange_fixtures import ExchangeProcess

KEY = KEYS["read-only"]


def use_isolated_topics(monkeypatch: pytest.MonkeyPatch, prefix: str, folder: Path) -> None:
    """Set topics with a prefix, and exclude the machine's own settings file."""
    (folder / "collector.yaml").write_text("bybit_testnet: true\n")
    monkeypatch.setenv("HEDGELOCK_CONFIG", str(folder / "collector.yaml"))
    for topic in Topic:
        monkeypatch.setenv(topic.setting.upper(), prefix + topic.value)


def an_ingest(exchange: ExchangeProcess, kafka: EmbeddedKafka) -> IngestResource:
    """Return the resource with the addresses of an exchange and a broker."""
    bybit = BybitResource(rest_url=exchange.rest_url, api_key=KEY.api_key, api_secret=KEY.api_secret)
    return IngestResource(bybit=bybit, kafka=KafkaResource(bootstrap_servers=kafka.bootstrap_servers))


async def materialized(
    ingest: IngestResource,
    instance: dg.DagsterInstance,
    *,
    tick_ms: int | None = None,
    only: str | None = None,
    may_fail: bool = False,
) -> dg.ExecuteInProcessResult:
    """Run the asset in a thread, since it starts its own event loop."""
    return await asyncio.to_thread(
        dg.materialize,
        [assets.poll_account],
        instance=instance,
        resources={"ingest": ingest},
        selection=[polled_key(only)] if only else None,
        run_config=config_of(tick_ms),
        raise_on_error=not may_fail,
    )


def config_of(tick_ms: int | None) -> dict[str, Any]:
    """Return the config of a run for a tick."""
    return {"ops": {jobs.OP_NAME: {"config": {"tick_ms": tick_ms}}}}


def tick_that_ends_in(left_ms: int) -> int:
    """Return the tick whose window ends in `left_ms`; a negative value means a past window."""
    return time.time_ns() // 1_000_000 + left_ms - LEAD_MS - WINDOW_MS


def figures(result: dg.ExecuteInProcessResult, part: str) -> Mapping[str, Any]:
    """Return the metadata that a run reported of a part, from a materialisation or an observation."""
    events: list[dg.AssetMaterialization | dg.AssetObservation] = [
        *(each.step_materialization_data.materialization for each in result.get_asset_materialization_events()),
        *(each.asset_observation_data.asset_observation for each in result.get_asset_observation_events()),
    ]
    (event,) = [each for each in events if each.asset_key == polled_key(part)]
    return {name: value.value for name, value in event.metadata.items()}


def verdict(result: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    """Return the slot check of a run of one part."""
    (found,) = [each for each in result.get_asset_check_evaluations() if each.check_name == "every_slot_polled"]
    return found
