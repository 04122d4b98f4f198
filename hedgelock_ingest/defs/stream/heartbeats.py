"""Heartbeats of a shard's runs: rows in Dagster's own storage, so that every machine can read them."""

import dataclasses
import json
import os
import socket
import time
from dataclasses import dataclass
from typing import Self

import dagster as dg
import psutil

_FRESH_S = 8.0


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """
    A heartbeat of the run that carries a shard; `at_s` and `process_started_s` are seconds since 1970.

    `hands_over`: the session has reached its length, and continues only until a successor waits for the journal.
    """

    run_id: str
    host: str
    pid: int
    at_s: float
    position: int
    hands_over: bool = False
    process_started_s: float = 0.0

    @classmethod
    def of_this_process(cls, run_id: str, *, position: int = 0, hands_over: bool = False) -> Self:
        """Create a heartbeat of this process."""
        process_started_s = psutil.Process().create_time()
        return cls(run_id, socket.gethostname(), os.getpid(), time.time(), position, hands_over, process_started_s)

    def is_fresh(self, extra_s: float) -> bool:
        """Whether it is younger than 8 s plus `extra_s`; assumes that writer and reader have the same clock."""
        return time.time() - self.at_s < _FRESH_S + extra_s


# A run may have newer or older code than the sensor that reads its heartbeat: stored names stay.
_STORED_NAMES = {"process_started_s": "born_s"}
_FIELD_BY_STORED_NAME = {_STORED_NAMES.get(each.name, each.name): each.name for each in dataclasses.fields(Heartbeat)}


def write(instance: dg.DagsterInstance, shard: str, heartbeat: Heartbeat) -> None:
    """Write the heartbeat of a shard; it replaces the last one."""
    stored = {_STORED_NAMES.get(name, name): value for name, value in dataclasses.asdict(heartbeat).items()}
    instance.daemon_cursor_storage.set_cursor_values({_key(shard): json.dumps(stored)})


def find(instance: dg.DagsterInstance, shard: str) -> Heartbeat | None:
    """Return the last heartbeat of a shard; None if there is none, or it cannot be read."""
    text = instance.daemon_cursor_storage.get_cursor_values({_key(shard)}).get(_key(shard))
    try:
        fields = json.loads(text) if text else {}
        return Heartbeat(**{name: fields[stored] for stored, name in _FIELD_BY_STORED_NAME.items() if stored in fields})
    except (TypeError, ValueError):
        return None


def announce(instance: dg.DagsterInstance, shard: str, run_id: str) -> None:
    """Record that a run waits for the shard's journal."""
    instance.daemon_cursor_storage.set_cursor_values({_key(shard, "/next"): json.dumps([run_id, time.time()])})


def find_successor(instance: dg.DagsterInstance, shard: str) -> str | None:
    """Return the run that waits for the shard's journal; None if there is none."""
    key = _key(shard, "/next")
    text = instance.daemon_cursor_storage.get_cursor_values({key}).get(key)
    try:
        run_id, at_s = json.loads(text) if text else (None, 0.0)
        return str(run_id) if time.time() - at_s < _FRESH_S else None
    except (TypeError, ValueError):
        return None


def _key(shard: str, what: str = "") -> str:
    return f"hedgelock/stream/{shard}{what}"
