"""Which time was proven complete, audit by audit: each goes on where the last one ended, and nothing is forgotten."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import NamedTuple, Self

import dagster as dg

PROOF = "proof"
"""The metadata that an audit leaves for the next ones."""

HORIZON = timedelta(hours=1)
"""How far back an audit reads at most, and for how long it tells what it found."""

OVERLAP = timedelta(seconds=20)
"""Longer than a feed may be silent, so that what is missing at a seam is seen by the later audit."""


class Proven(NamedTuple):
    """
    A span that was read back, and what contradicts completeness in it, by topic.

    `first_ms` is when each topic got its first record in the span, `last_ms` when each key of each topic got its last
    one, in the span or before.
    """

    since: datetime
    until: datetime
    wrong: Mapping[str, Sequence[str]]
    first_ms: Mapping[str, int] = MappingProxyType({})
    last_ms: Mapping[str, Mapping[str, int]] = MappingProxyType({})

    def as_metadata(self) -> dg.JsonMetadataValue:
        """Write it down."""
        span = {"since": self.since.isoformat(), "until": self.until.isoformat()}
        last = {topic: dict(keys) for topic, keys in self.last_ms.items()}
        wrong = {topic: list(lines) for topic, lines in self.wrong.items()}
        return dg.MetadataValue.json({**span, "wrong": wrong, "first_ms": dict(self.first_ms), "last_ms": last})

    @classmethod
    def of(cls, event: dg.EventLogRecord) -> Self | None:
        """Read what an audit wrote down; None if it wrote nothing of the kind."""
        found = event.asset_materialization.metadata.get(PROOF) if event.asset_materialization else None
        if not isinstance(found, dg.JsonMetadataValue) or not isinstance(found.data, dict):
            return None
        since, until = (datetime.fromisoformat(str(found.data[name])) for name in ("since", "until"))
        seen = found.data.get("first_ms", {}), found.data.get("last_ms", {})
        return cls(since.astimezone(UTC), until.astimezone(UTC), found.data["wrong"], *seen)


def proven_in(events: Iterable[dg.EventLogRecord], *, since: datetime) -> list[Proven]:
    """Collect the audits that say something of the time since, in order."""
    found = [proven for event in events if (proven := Proven.of(event)) is not None and proven.until > since]
    return sorted(found, key=lambda proven: proven.since)


def first_unproven(spans: Iterable[Proven], *, since: datetime) -> datetime:
    """Say how far the spans, in order, cover the time since without a hole; `since` itself if they do not."""
    end = since
    for span in spans:
        if span.since > end:
            break
        end = max(end, span.until)
    return end


def wrong_of(topic: str, spans: Iterable[Proven]) -> list[str]:
    """List what contradicts the completeness of a topic, each once: spans overlap."""
    return list(dict.fromkeys(line for span in spans for line in span.wrong.get(topic, ())))
