"""Heartbeats can be read by older and newer code."""

import dataclasses
import json
from typing import Any

import dagster as dg
import pytest

from hedgelock_ingest.defs.stream import heartbeats

HEARTBEAT = heartbeats.Heartbeat.of_this_process("the-run", position=7)


def stored(instance: dg.DagsterInstance, text: str) -> None:
    """Store the heartbeat of another version."""
    key = "hedgelock/stream/main"
    heartbeats.write(instance, "main", HEARTBEAT)
    assert instance.daemon_cursor_storage.get_cursor_values({key}), "the heartbeat is stored under another key"
    instance.daemon_cursor_storage.set_cursor_values({key: text})


@pytest.mark.parametrize("change", [{"unknown_field": [1]}, {}])
def test_heartbeat_of_newer_code_is_read(change: dict[str, Any]) -> None:
    """During an update a run may have newer code than the sensor, which must not treat it as dead."""
    with dg.DagsterInstance.ephemeral() as instance:
        stored(instance, json.dumps(dataclasses.asdict(HEARTBEAT) | change))
        assert heartbeats.find(instance, "main") == HEARTBEAT


@pytest.mark.parametrize("text", ["", "{}", "[]", "7", "null", "no JSON", '{"run_id": "the-run"}'])
def test_invalid_heartbeat_is_none(text: str) -> None:
    """The sensor continues with any stored text."""
    with dg.DagsterInstance.ephemeral() as instance:
        stored(instance, text)
        assert heartbeats.find(instance, "main") is None
