"""Signs of life are understood by the code of yesterday and of tomorrow."""

import dataclasses
import json
from typing import Any

import dagster as dg
import pytest

from hedgelock_ingest.defs.stream import heartbeats

SIGN = heartbeats.SignOfLife.of_this_process("the-run", position=7)


def stored(instance: dg.DagsterInstance, text: str) -> None:
    """Put into storage what another version left there."""
    key = "hedgelock/stream/main"
    heartbeats.leave(instance, "main", SIGN)
    assert instance.daemon_cursor_storage.get_cursor_values({key}), "it stands somewhere else"
    instance.daemon_cursor_storage.set_cursor_values({key: text})


@pytest.mark.parametrize("change", [{"unheard_of": [1]}, {}])
def test_sign_of_newer_code_is_read(change: dict[str, Any]) -> None:
    """While code is updated a run may know more than the sensor, which must not hold it for dead."""
    with dg.DagsterInstance.ephemeral() as instance:
        stored(instance, json.dumps(dataclasses.asdict(SIGN) | change))
        assert heartbeats.find(instance, "main") == SIGN


@pytest.mark.parametrize("text", ["", "{}", "[]", "7", "null", "no JSON", '{"run_id": "the-run"}'])
def test_what_is_no_sign_is_none(text: str) -> None:
    """The sensor goes on whatever stands there."""
    with dg.DagsterInstance.ephemeral() as instance:
        stored(instance, text)
        assert heartbeats.find(instance, "main") is None
