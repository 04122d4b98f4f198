"""The signs of life of a shard's runs: rows in Dagster's own storage, so that they are seen from any machine."""

import dataclasses
import json
import time
from dataclasses import dataclass

import dagster as dg

_FRESH_S = 8.0


@dataclass(frozen=True, slots=True)
class SignOfLife:
    """
    Who carries a shard, and when it last said so; `at_s` is seconds since 1970.

    `hands_over`: its session has its length, and it goes on only until a successor waits for the journal.
    """

    run_id: str
    host: str
    pid: int
    at_s: float
    position: int
    hands_over: bool = False

    def is_fresh(self, patience_s: float) -> bool:
        """Whether it was left lately, or not much longer than `patience_s` ago, by a clock like the reader's."""
        return time.time() - self.at_s < _FRESH_S + patience_s


def leave(instance: dg.DagsterInstance, shard: str, sign: SignOfLife) -> None:
    """Say that a shard is carried; the last one who says so wins."""
    instance.daemon_cursor_storage.set_cursor_values({_key(shard): json.dumps(dataclasses.asdict(sign))})


def find(instance: dg.DagsterInstance, shard: str) -> SignOfLife | None:
    """Give the last sign of life of a shard; None if there never was one, or it cannot be read."""
    text = instance.daemon_cursor_storage.get_cursor_values({_key(shard)}).get(_key(shard))
    try:
        return SignOfLife(**json.loads(text)) if text else None
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
