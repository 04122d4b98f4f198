"""Up to where the slots of a poll were told, and which were not: kept however long nobody was there to tell."""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg

from hedgelock_ingest.defs.polls.slots import WINDOW_MS, Lost, Window, told_through, untold, window_of
from hedgelock_ingest.defs.polls.window import past_polls_of, slot_of
from hedgelock_ingest.errors import IngestError
from hedgelock_ingest.protocol.rest_messages import Part
from hedgelock_ingest.settings import Settings

log = logging.getLogger(__name__)

END = "window end ms"
HOLES = "holes told"
"""Metadata by which a window says what it told of: itself, and what nobody had told of before it."""

_READ_BACK_MS = 60 * WINDOW_MS
_NOT_OVER = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def spans_told(events: Iterable[dg.EventLogRecord]) -> list[Window]:
    """Collect what events told of; polls by hand tell of no span."""
    told = [event.asset_materialization or event.asset_observation for event in events]
    return [span for each in told if each is not None for span in _spans_in(each.metadata)]


def holes_before(
    instance: dg.DagsterInstance, part: Part, window: Window, told: Sequence[Window], *, left_to_others_until_ms: int
) -> list[Window]:
    """
    List the spans before a window that nobody told of.

    Args:
        instance: Where it is kept up to where all was told.
        part: Of which poll.
        window: What is told now.
        told: What events that are still there told of.
        left_to_others_until_ms: What `under_way_until` gave before those events were read.
    """
    until_ms = told_until(instance, part)
    holes = untold(until_ms, told, window)
    begin_ms = left_to_others_until_ms
    return [Window(max(hole.begin_ms, begin_ms), hole.end_ms) for hole in holes if hole.end_ms > begin_ms]


def under_way_until(instance: dg.DagsterInstance, job_name: str, op_name: str, window: Window) -> int:
    """
    Say up to where runs that are not over will tell: when one fails, the next run tells in its place.

    Several are under way when a daemon makes up for ticks; without this each would tell the same holes.
    """
    runs = instance.get_runs(dg.RunsFilter(job_name=job_name, statuses=_NOT_OVER))
    ends = [window_of(tick_ms).end_ms for run in runs if (tick_ms := _tick_ms(run.run_config, op_name)) is not None]
    return max((end_ms for end_ms in ends if end_ms <= window.begin_ms), default=0)


def lost_in(settings: Settings, part: Part, interval_ms: int, holes: Sequence[Window]) -> list[Lost]:
    """Say which slots of the holes were missed: a run that polled and could not tell has left its answers in Kafka."""
    if not holes:
        return []
    end_ms = holes[-1].end_ms
    try:
        found = asyncio.run(past_polls_of(settings, Window(end_ms - _READ_BACK_MS, end_ms)))
    except IngestError as error:
        log.warning("past_polls_unknown part=%s cause=%s", part, error)
        found = []
    polled = {slot_of(past) for past in found if past.part is part and slot_of(past) % interval_ms == 0}
    return [
        Lost(hole, interval_ms, frozenset(slot for slot in polled if hole.begin_ms <= slot < hole.end_ms))
        for hole in holes
    ]


def told_until(instance: dg.DagsterInstance, part: Part) -> int | None:
    """Read up to where every slot was told, in milliseconds since 1970; None if that was never noted."""
    text = instance.daemon_cursor_storage.get_cursor_values({_key(part)}).get(_key(part))
    return int(text) if text and text.isdecimal() else None


def note_told(instance: dg.DagsterInstance, part: Part, told: Sequence[Window]) -> None:
    """
    Keep up to where the slots were told without a hole; events are forgotten with their runs, this is not.

    It may be behind, when two runs note at once: the events that are young say the rest.
    """
    before_ms = told_until(instance, part)
    until_ms = told_through(before_ms, told)
    if until_ms != before_ms:
        instance.daemon_cursor_storage.set_cursor_values({_key(part): str(until_ms)})


def _spans_in(metadata: Mapping[str, dg.MetadataValue[Any]]) -> list[Window]:
    if END not in metadata:
        return []
    end_ms = int(str(metadata[END].value))
    holes = metadata.get(HOLES)
    others = holes.data if isinstance(holes, dg.JsonMetadataValue) and isinstance(holes.data, list) else []
    return [Window(end_ms - WINDOW_MS, end_ms), *(Window(int(begin), int(end)) for begin, end in others)]


def _tick_ms(run_config: Mapping[str, object], op_name: str) -> int | None:
    found: object = run_config
    for name in ("ops", op_name, "config", "tick_ms"):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, int) else None


def _key(part: Part) -> str:
    return f"hedgelock/poll/{part.value}/told_until_ms"
