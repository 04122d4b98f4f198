"""Results that the journal returns, besides frames and refused records."""

from pathlib import Path

import msgspec

from hedgelock_ingest.protocol.frames import Frame


class LostRange(msgspec.Struct, frozen=True):
    """
    Positions whose frames are no longer readable, both ends included.

    `last` is None where the journal's end is lost and the number of lost frames is unknown.
    """

    first: int
    last: int | None


class Recovery(msgspec.Struct, frozen=True):
    """
    Findings and actions of opening a journal.

    `findings` are sentences for the operator, empty when the journal was intact. `lost` are frames that were durable
    and are lost. `kept_as` is the path of the damaged database. `state_lost` means that the saved state could not be
    read although its position is known.
    """

    findings: tuple[str, ...] = ()
    lost: tuple[LostRange, ...] = ()
    kept_as: Path | None = None
    state_lost: bool = False
    new_identity: bool = False

    @property
    def is_clean(self) -> bool:
        """Whether the journal was intact."""
        return not self.findings


class SavedState(msgspec.Struct, frozen=True):
    """
    The state that a journal's owner saved last, and the first frame that it does not cover, if there is one.

    Every frame up to `position` is acknowledged by Kafka. `state` is None where none was ever saved, and empty where
    it is lost.
    """

    position: int
    state: bytes | None
    next_frame: Frame | None
