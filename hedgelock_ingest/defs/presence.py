"""The sign of life of a shard's run: a row in Dagster's own storage, so that it is seen from any machine."""

import dataclasses
import json
from dataclasses import dataclass

import dagster as dg


@dataclass(frozen=True, slots=True)
class SignOfLife:
    """Who carries a shard, and when it last said so; `at_s` is seconds since 1970."""

    run_id: str
    host: str
    pid: int
    at_s: float
    position: int


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


def _key(shard: str) -> str:
    return f"hedgelock/stream/{shard}"
