"""Helpers that translate frames and read the resulting records."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hedgelock_ingest.models.topics import CONTRACTS, Topic
from hedgelock_ingest.protocol.frames import Frame
from hedgelock_ingest.translate.record import Record
from hedgelock_ingest.translate.translator import Translator
from hedgelock_ingest_tests.builders import a_frame

SAMPLES = Path(__file__).parent.parent / "samples"


def sample_lines(name: str) -> list[bytes]:
    """Return the recorded frames of one file."""
    return (SAMPLES / name).read_bytes().splitlines()


class Running:
    """A translator with its journal's next position."""

    def __init__(self, translator: Translator | None = None) -> None:
        self.translator = translator or Translator(state_interval_ms=0)
        self.position = 0

    def take(self, *frames: Frame | bytes, line: str = "linear-a") -> list[Record]:
        """Translate frames in order; bytes come from `line`."""
        records: list[Record] = []
        for frame in frames:
            self.position += 1
            journalled = a_frame(frame, line=line) if isinstance(frame, bytes) else frame
            records += self.translator.translate(self.position, journalled)
        return records


def values(records: Iterable[Record], topic: Topic) -> list[dict[str, Any]]:
    """Return the decoded values of one topic."""
    return [json.loads(record.value) for record in records if record.topic is topic]


def check_contracts(records: Iterable[Record]) -> None:
    """Fail unless each value is exactly the JSON of its topic's model."""
    for record in records:
        model = CONTRACTS[record.topic].message
        value = model.model_validate_json(record.value)
        assert json.loads(value.model_dump_json(by_alias=True)) == json.loads(record.value)
