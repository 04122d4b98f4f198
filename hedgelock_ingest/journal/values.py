"""The values a journal takes and gives, besides frames."""

from pathlib import Path

import msgspec

from hedgelock_ingest.protocol.frames import Frame
from hedgelock_ingest.translate.record import RefusedRecord

__all__ = ["LostRange", "Recovery", "RefusedRecord", "SavedState"]


class LostRange(msgspec.Struct, frozen=True):
    """
    Positions whose frames cannot be read any more, both ends included.

    `last` is None where the journal's end is lost and nothing tells how many frames stood there.
    """

    first: int
    last: int | None


class Recovery(msgspec.Struct, frozen=True):
    """
    What opening a journal found and did.

    `findings` are sentences for the operator, empty when nothing was wrong. `lost` are frames that were durable
    and are gone. `kept_as` is where the damaged database lies now. `state_lost` says that the saved state could
    not be read although the position it belongs to is known.
    """

    findings: tuple[str, ...] = ()
    lost: tuple[LostRange, ...] = ()
    kept_as: Path | None = None
    state_lost: bool = False
    new_identity: bool = False

    @property
    def is_clean(self) -> bool:
        """Nothing was wrong."""
        return not self.findings


class SavedState(msgspec.Struct, frozen=True):
    """
    The state that a journal's owner has saved last, and the first frame that it does not know of, if there is one.

    Everything up to `position` is acknowledged by Kafka. `state` is None where none was ever saved, and empty
    where it is lost.
    """

    position: int
    state: bytes | None
    next_frame: Frame | None
