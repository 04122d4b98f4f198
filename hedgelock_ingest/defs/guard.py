"""Whether a run may go on: it asks Dagster, its parent and its journal, since nobody tells an orphan to stop."""

import logging
import os
import socket
import time
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple

import dagster as dg

from hedgelock_ingest.defs import presence
from hedgelock_ingest.defs.session import Session

log = logging.getLogger(__name__)

_LONGEST_HANDOVER_S = 180.0
"""So long a run whose session is over waits for its successor; then it ends without."""

ENDS_WITH = "HEDGELOCK_ENDS_WITH"
"""Names a process in the environment: runs end when it does. The demo leaves nothing behind that way."""


def is_left_behind() -> bool:
    """Say whether the process is gone whose end is ours."""
    named = os.environ.get(ENDS_WITH, "")
    if not named.isdecimal():
        return False
    try:
        os.kill(int(named), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


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

    def look(self) -> Ending | None:
        """Leave a sign of life, and say whether something asks for the end."""
        if is_left_behind():
            return Ending(Verdict.HANDED_OVER, "Dagster was stopped; the next start goes on from here")
        if os.getppid() != self.parent:
            return Ending(Verdict.FAILED, "the code server that started this run is gone; it drained and stopped")
        if not self.session.owns_journal:
            return Ending(Verdict.FAILED, "the journal's folder was replaced under this run; it stopped")
        if self._over_s > _LONGEST_HANDOVER_S:
            return Ending(Verdict.HANDED_OVER, "the session has its length and no successor came; the next run goes on")
        try:
            return self._ask_storage()
        except Exception as error:  # noqa: BLE001  # whatever storage is plugged in raises its own
            log.warning("dagster_storage_unusable cause=%s", type(error).__name__)
            return None

    @property
    def _over_s(self) -> float:
        return time.monotonic() - self.began_s - self.session_s

    def _ask_storage(self) -> Ending | None:
        run = self.instance.get_run_by_id(self.run_id)
        if run is None or run.is_finished:
            status = run.status.value if run else "deleted"
            return Ending(Verdict.FAILED, f"Dagster holds this run for {status}; it drained and stopped")
        if run.status is dg.DagsterRunStatus.CANCELING:
            return Ending(Verdict.CANCELED, "Dagster asked for the end")
        if not self.session.is_live:
            return None
        shard, hands_over = self.session.shard, self._over_s > 0
        sign = presence.SignOfLife(
            self.run_id, socket.gethostname(), os.getpid(), time.time(), self.session.position, hands_over
        )
        presence.leave(self.instance, shard, sign)
        successor = presence.find_successor(self.instance, shard) if hands_over else None
        return Ending(Verdict.HANDED_OVER, f"run {successor} takes over") if successor else None
