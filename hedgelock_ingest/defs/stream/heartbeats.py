"""The signs of life of a shard's runs: rows in Dagster's own storage, so that they are seen from any machine."""

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
class SignOfLife:
    """
    Who carries a shard, and its last heartbeat; `at_s` and `process_started_s` are seconds since 1970.

    `hands_over`: its session has its length, and it goes on only until a successor waits for the journal.
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
        """Make the sign that this process gives now."""
        process_started_s = psutil.Process().create_time()
        return cls(run_id, socket.gethostname(), os.getpid(), time.time(), position, hands_over, process_started_s)

    def is_fresh(self, patience_s: float) -> bool:
        """Whether it was left lately, or not much longer than `patience_s` ago, by a clock like the reader's."""
        return time.time() - self.at_s < _FRESH_S + patience_s


# A run may be of newer code than the sensor that looks at it.
_FIELDS = {each.name for each in dataclasses.fields(SignOfLife)}


def leave(instance: dg.DagsterInstance, shard: str, sign: SignOfLife) -> None:
    """Say that a shard is carried; the last one who says so wins."""
    instance.daemon_cursor_storage.set_cursor_values({_key(shard): json.dumps(dataclasses.asdict(sign))})


def find(instance: dg.DagsterInstance, shard: str) -> SignOfLife | None:
    """Give the last sign of life of a shard; None if there never was one, or it cannot be read."""
    text = instance.daemon_cursor_storage.get_cursor_values({_key(shard)}).get(_key(shard))
    try:
        told = json.loads(text) if text else {}
        return SignOfLife(**{name: told[name] for name in told if name in _FIELDS})
    except (TypeError, ValueError):
        return None


def announce(instance: dg.DagsterInstance, shard: str, run_id: str) -> None:
    """Say that a run waits for the shard's journal."""
    instance.daemon_cursor_storage.set_cursor_values({_key(shard, "/next"): json.dumps([run_id, time.time()])})


def find_successor(instance: dg.DagsterInstance, shard: str) -> str | None:
    """Give the run that waits for the shard's journal; None if there is none."""
    key = _key(shard, "/next")
    text = instance.daemon_cursor_storage.get_cursor_values({key}).get(key)
    try:
        run_id, at_s = json.loads(text) if text else (None, 0.0)
        return str(run_id) if time.time() - at_s < _FRESH_S else None
    except (TypeError, ValueError):
        return None


def _key(shard: str, what: str = "") -> str:
    return f"hedgelock/stream/{shard}{what}"
