"""Checks of the audit: gaps, dead letters, and the completeness of the market topics."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import dagster as dg

from hedgelock_ingest.audit import dead_letters, gaps
from hedgelock_ingest.audit.gaps import VERIFIED_TOPICS, FeedVerification
from hedgelock_ingest.defs.audit.silent_keys import AuditWindow, Silence
from hedgelock_ingest.models.gaps_and_dead_letters import Gap
from hedgelock_ingest.models.topics import Topic

AUDIT = dg.AssetKey(["audit"])
"""
The checks belong to this asset, not to the topics: a topic is materialised every minute, and Dagster shows a check as
not evaluated once its asset is newer.
"""

"""The topics whose completeness is checked."""
_MAX_SHOWN = 10


def check_specs() -> list[dg.AssetCheckSpec]:
    """Describe all checks of the audit."""
    complete = (
        "In the last 20 minutes no record is missing outside the recorded gaps or duplicated, and topics that are "
        "written all the time have records up to now; otherwise an error. A warning if there is nothing to check."
    )
    no_gaps = "No gap ended in the last hour: an unfilled gap is an error, a filled one a warning."
    no_letters = "Every frame of the last hour was decoded; otherwise a warning."
    return [
        dg.AssetCheckSpec("no_holes", asset=AUDIT, description=no_gaps),
        dg.AssetCheckSpec("no_dead_letters", asset=AUDIT, description=no_letters),
        *(dg.AssetCheckSpec(_name(topic), asset=AUDIT, description=complete) for topic in VERIFIED_TOPICS),
    ]


def gaps_check(found: Sequence[Gap]) -> dg.AssetCheckResult:
    """Check that no gap is recorded: an unfilled one is an error, a filled one a warning."""
    unfilled = [gap for gap in found if gap.healed == "no"]
    lines = [
        f"- {gap.from_:%H:%M:%S} to {gap.to:%H:%M:%S} {gap.feed}: {gap.reason}; filled: {gap.healed}" for gap in found
    ]
    return dg.AssetCheckResult(
        check_name="no_holes",
        passed=not found,
        severity=dg.AssetCheckSeverity.ERROR if unfilled else dg.AssetCheckSeverity.WARN,
        description=f"{len(found)} gaps, {len(unfilled)} of them not filled",
        metadata={
            "gaps": len(found),
            "not filled": len(unfilled),
            "last": dg.MetadataValue.md("\n".join(lines[-_MAX_SHOWN:])),
        },
    )


def dead_letters_check(recent: Sequence[dead_letters.StoredDeadLetter]) -> dg.AssetCheckResult:
    """Check that there is no dead letter."""
    lines = [f"- {letter.at:%H:%M:%S} `{letter.id}` {letter.feed}: {letter.reason}" for letter in recent]
    return dg.AssetCheckResult(
        check_name="no_dead_letters",
        passed=not recent,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(recent)} dead letters; the job replay_dead_letters processes them again",
        metadata={"letters": len(recent), "last": dg.MetadataValue.md("\n".join(lines[-_MAX_SHOWN:]))},
    )


def completeness_check(topic: Topic, window: AuditWindow, silences: Sequence[Silence]) -> dg.AssetCheckResult:
    """Check one topic: neither contradictions among its records, nor silences."""
    feeds = [feed for feed in window.feeds if feed.topic is topic]
    contradictions = [line for feed in feeds for line in _contradictions(feed)]
    records = sum(feed.records for feed in feeds)
    is_error = bool(contradictions) or any(silence.is_error for silence in silences)
    found = [*contradictions[:_MAX_SHOWN], *(silence.report for silence in silences[:_MAX_SHOWN])]
    first = window.first_of(topic)
    return dg.AssetCheckResult(
        check_name=_name(topic),
        passed=not found,
        severity=dg.AssetCheckSeverity.ERROR if is_error else dg.AssetCheckSeverity.WARN,
        description="; ".join(found) or _complete_text(window, first, records),
        metadata={
            "records": records,
            "keys": len(feeds),
            "from": f"{window.since:%H:%M:%S}",
            "to": f"{window.until:%H:%M:%S}",
            "verified since": f"{max(window.since, first or window.until):%H:%M:%S}",
            "contradictions": len(contradictions),
            "silent keys": len(silences),
        },
    )


def _name(topic: Topic) -> str:
    return f"{topic.value.replace('-', '_')}_is_complete"


def _complete_text(window: AuditWindow, first: datetime | None, records: int) -> str:
    if first is None:
        return f"no record since {window.since:%H:%M:%S} UTC: its feeds are idle, or the settings configure none"
    if first - window.since > timedelta(milliseconds=gaps.LONGEST_SILENCE_MS):
        return f"nothing missing or duplicated since {first:%H:%M:%S} UTC, the first record; {records} records"
    return f"nothing missing or duplicated since {window.since:%H:%M:%S} UTC; {records} records"


def _contradictions(feed: FeedVerification) -> Iterator[str]:
    yield from (f"{feed.key}: {finding}" for finding in feed.unexplained)
    if feed.doubled:
        yield f"{feed.key}: {feed.doubled} duplicated"
    if feed.out_of_order:
        yield f"{feed.key}: {feed.out_of_order} out of order"
