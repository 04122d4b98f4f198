"""Whether a run may go on: it asks Dagster, its parent and its journal, since nobody tells an orphan to stop."""

import contextlib
import logging
import os
import time
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple

import dagster as dg

from hedgelock_ingest.defs.stream import heartbeats
from hedgelock_ingest.defs.stream.session import ENDING_S, Session

log = logging.getLogger(__name__)

LOOK_INTERVAL_S = 2.0

_LONGEST_OPENING_S = 120.0
"""So long a journal that is being opened counts as life."""
_LONGEST_HANDOVER_S = 180.0
"""So long a run that hands over waits for its successor, the daemon taking up to 60 s to start a code server again."""


class Verdict(Enum):
    """How a run is to end."""

    HANDED_OVER = auto()
    CANCELED = auto()
    FAILED = auto()


class Ending(NamedTuple):
    """Why a run must not go on."""

    verdict: Verdict
    reason: str


@dataclass(slots=True)
class Guard:
    """Looks after one run; a storage that does not answer is no reason to stop a stream that works."""

    instance: dg.DagsterInstance
    run_id: str
    session: Session
    session_s: float
    began_s: float = field(default_factory=time.monotonic)
    parent: int = field(default_factory=os.getppid)
    orphaned_s: float | None = None

    def look(self) -> Ending | None:
        """Leave a sign of life, and say whether something asks for the end."""
        if os.getppid() != self.parent and self.orphaned_s is None:
            self.orphaned_s = time.monotonic()
            log.warning("code_server_gone run=%s consequence=%s", self.run_id, "it hands over to the next run")
        if self.orphaned_s is not None and not self.session.has_begun:
            return Ending(Verdict.FAILED, "the code server that started this run is gone")
        if not self.session.owns_journal:
            return Ending(Verdict.FAILED, "the journal's folder was replaced under this run; it stopped")
        if self._over_s > _LONGEST_HANDOVER_S:
            if self.orphaned_s is not None:
                return Ending(Verdict.FAILED, "the code server that started this run is gone, and no successor came")
            return Ending(Verdict.HANDED_OVER, "the session has its length and no successor came; the next run goes on")
        try:
            return self._ask_storage()
        except Exception as error:  # noqa: BLE001  # whatever storage is plugged in raises its own
            log.warning("dagster_storage_unusable cause=%s", type(error).__name__)
            return None

    @property
    def _over_s(self) -> float:
        now_s = time.monotonic()
        return max(now_s - self.began_s - self.session_s, -1.0 if self.orphaned_s is None else now_s - self.orphaned_s)

    def _ask_storage(self) -> Ending | None:
        run = self.instance.get_run_by_id(self.run_id)
        if run is None or run.is_finished:
            status = run.status.value if run else "deleted"
            return Ending(Verdict.FAILED, f"Dagster holds this run for {status}; it drained and stopped")
        if run.status is dg.DagsterRunStatus.CANCELING:
            return Ending(Verdict.CANCELED, "Dagster asked for the end")
        if self.session.is_live or self._opens:
            self._leave_sign()
        if self._over_s <= 0 or not self.session.is_live:
            return None
        successor = heartbeats.find_successor(self.instance, self.session.shard)
        return Ending(Verdict.HANDED_OVER, f"run {successor} takes over") if successor else None

    @property
    def _opens(self) -> bool:
        return self.session.is_opening and time.monotonic() - self.began_s < _LONGEST_OPENING_S

    def _leave_sign(self) -> None:
        sign = heartbeats.SignOfLife.of_this_process(
            self.run_id, position=self.session.position, hands_over=self._over_s > 0
        )
        heartbeats.leave(self.instance, self.session.shard, sign)

    def drain(self) -> bool:
        """
        Drain whatever interrupts, with signs of life; say whether the session has ended.

        A second Terminate must not turn a clean end into an unclean one.
        """
        deadline_s = time.monotonic() + self.session.settings.stop_timeout + ENDING_S
        while self.session.is_running and time.monotonic() < deadline_s:
            with contextlib.suppress(dg.DagsterExecutionInterruptedError):
                if not self.session.stop(wait_s=LOOK_INTERVAL_S):
                    self._try_to_leave_sign()
        return not self.session.is_running

    def _try_to_leave_sign(self) -> None:
        try:
            self._leave_sign()
        except Exception as error:  # noqa: BLE001  # as in `look`
            log.warning("dagster_storage_unusable cause=%s", type(error).__name__)
