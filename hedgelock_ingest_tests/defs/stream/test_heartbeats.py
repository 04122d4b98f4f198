"""Heartbeats can be read by older and newer code."""

import json
from typing import Any

import dagster as dg
import pytest

from hedgelock_ingest.defs.stream import heartbeats

HEARTBEAT = heartbeats.Heartbeat.of_this_process("the-run", position=7)


KEY = "hedgelock/stream/main"
STORED = {
    "run_id": "the-run",
    "host": HEARTBEAT.host,
    "pid": HEARTBEAT.pid,
    "at_s": HEARTBEAT.at_s,
    "position": 7,
    "hands_over": False,
    "born_s": HEARTBEAT.process_started_s,
}


def store(instance: dg.DagsterInstance, text: str) -> None:
    """Store the heartbeat of another version."""
    instance.daemon_cursor_storage.set_cursor_values({KEY: text})


def test_heartbeat_is_stored_under_the_names_that_older_code_reads() -> None:
    """After an update the sensor may be older than the run, or the other way round."""
    with dg.DagsterInstance.ephemeral() as instance:
        heartbeats.write(instance, "main", HEARTBEAT)
        assert json.loads(instance.daemon_cursor_storage.get_cursor_values({KEY})[KEY]) == STORED


@pytest.mark.parametrize("change", [{"unknown_field": [1]}, {}])
def test_heartbeat_of_newer_code_is_read(change: dict[str, Any]) -> None:
    """During an update a run may have newer code than the sensor, which must not treat it as dead."""
    with dg.DagsterInstance.ephemeral() as instance:
        store(instance, json.dumps(STORED | change))
        assert heartbeats.find(instance, "main") == HEARTBEAT


@pytest.mark.parametrize("text", ["", "{}", "[]", "7", "null", "no JSON", '{"run_id": "the-run"}'])
def test_invalid_heartbeat_is_none(text: str) -> None:
    """The sensor continues with any stored text."""
    with dg.DagsterInstance.ephemeral() as instance:
        store(instance, text)
        assert heartbeats.find(instance, "main") is None
