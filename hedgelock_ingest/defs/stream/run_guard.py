"""Guard of a streaming run, inside it: ends the run when Dagster, its code server or its journal require that."""

import contextlib
import os
import time
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple

import dagster as dg
import structlog

from hedgelock_ingest.defs.stream import heartbeats
from hedgelock_ingest.defs.stream.session import SHUTDOWN_GRACE_S, StreamSession

log = structlog.get_logger(__name__)

CHECK_INTERVAL_S = 2.0

_OPENING_TIMEOUT_S = 120.0
"""Time for which opening the journal counts as progress."""
_HANDOVER_TIMEOUT_S = 180.0
"""Time that a run that hands over waits for its successor; the daemon takes up to 60 s to restart a code server."""


class EndKind(Enum):
    """Kinds of a run's end."""

    HANDED_OVER = auto()
    CANCELED = auto()
    FAILED = auto()


class RunEnd(NamedTuple):
    """The decision to end a run, with its reason."""

    kind: EndKind
    reason: str


@dataclass(slots=True)
class Guard:
    """Decides whether one run may continue; unavailable Dagster storage does not stop a working stream."""

    instance: dg.DagsterInstance
    run_id: str
    session: StreamSession
    session_s: float
    began_s: float = field(default_factory=time.monotonic)
    parent: int = field(default_factory=os.getppid)
    parent_lost_s: float | None = None

    def check(self) -> RunEnd | None:
        """Write a heartbeat, and return why the run must end, if it must."""
        if os.getppid() != self.parent and self.parent_lost_s is None:
            self.parent_lost_s = time.monotonic()
            log.warning("code_server_lost", run=self.run_id, consequence="the run hands over to the next one")
        if self.parent_lost_s is not None and not self.session.has_begun:
            return RunEnd(EndKind.FAILED, "the code server that started this run has ended")
        if not self.session.owns_journal:
            return RunEnd(EndKind.FAILED, "the journal's folder was replaced during this run; the run stopped")
        if self._overtime_s > _HANDOVER_TIMEOUT_S:
            if self.parent_lost_s is not None:
                return RunEnd(
                    EndKind.FAILED, "the code server that started this run has ended, and no successor started"
                )
            return RunEnd(
                EndKind.HANDED_OVER, "the session reached its length and no successor started; the next run continues"
            )
        try:
            return self._check_storage()
        except Exception as error:  # noqa: BLE001  # each storage plugin raises other exception types
            log.warning("dagster_storage_unusable", cause=type(error).__name__)
            return None

    @property
    def _overtime_s(self) -> float:
        now_s = time.monotonic()
        return max(
            now_s - self.began_s - self.session_s, -1.0 if self.parent_lost_s is None else now_s - self.parent_lost_s
        )

    def _check_storage(self) -> RunEnd | None:
        run = self.instance.get_run_by_id(self.run_id)
        if run is None or run.is_finished:
            status = run.status.value if run else "deleted"
            return RunEnd(EndKind.FAILED, f"Dagster's storage has this run as {status}; it drained and stopped")
        if run.status is dg.DagsterRunStatus.CANCELING:
            return RunEnd(EndKind.CANCELED, "Dagster requested termination")
        if self.session.is_live or self._is_opening:
            self._write_heartbeat()
        if self._overtime_s <= 0 or not self.session.is_live:
            return None
        successor = heartbeats.find_successor(self.instance, self.session.shard)
        return RunEnd(EndKind.HANDED_OVER, f"run {successor} takes over") if successor else None

    @property
    def _is_opening(self) -> bool:
        return self.session.is_opening and time.monotonic() - self.began_s < _OPENING_TIMEOUT_S

    def _write_heartbeat(self) -> None:
        heartbeat = heartbeats.Heartbeat.of_this_process(
            self.run_id, position=self.session.position, hands_over=self._overtime_s > 0
        )
        heartbeats.write(self.instance, self.session.shard, heartbeat)

    def drain(self) -> bool:
        """
        Drain despite interrupts, writing heartbeats; return whether the session has ended.

        A second Terminate must not turn a clean end into an unclean one.
        """
        deadline_s = time.monotonic() + self.session.settings.stop_timeout + SHUTDOWN_GRACE_S
        while self.session.is_running and time.monotonic() < deadline_s:
            with contextlib.suppress(dg.DagsterExecutionInterruptedError):
                if not self.session.stop(wait_s=CHECK_INTERVAL_S):
                    self._try_to_write_heartbeat()
        return not self.session.is_running

    def _try_to_write_heartbeat(self) -> None:
        try:
            self._write_heartbeat()
        except Exception as error:  # noqa: BLE001  # as in `check`
            log.warning("dagster_storage_unusable", cause=type(error).__name__)
