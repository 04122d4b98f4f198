"""Silence of topics that should have records: a window without records must not count as complete."""

from collections.abc import Iterator, Mapping, Sequence, Set
from datetime import UTC, datetime
from typing import NamedTuple

import dagster as dg

from hedgelock_ingest.audit.gaps import LONGEST_SILENCE_MS, FeedVerification, key_of
from hedgelock_ingest.models.gaps_and_dead_letters import Gap
from hedgelock_ingest.models.times import unix_ms, utc_text, utc_time
from hedgelock_ingest.models.topics import Topic

_START_MS = 60_000
"""Time after its start within which a stream produces its first record."""


class Silence(NamedTuple):
    """Report on a topic without records; not an error if there was never a record to miss."""

    report: str
    is_error: bool = True


class AuditWindow(NamedTuple):
    """
    The window that an audit has read, with the records of each feed.

    `up_since` is the start of the oldest running run of the stream, None without one. `has_run`: a run has existed.
    A stream outside Dagster has no run.
    """

    since: datetime
    until: datetime
    feeds: Sequence[FeedVerification]
    up_since: datetime | None = None
    has_run: bool = False

    def first_of(self, topic: Topic) -> datetime | None:
        """Return the time of the first record of a topic."""
        found = [feed.first_ms for feed in self.feeds if feed.topic is topic]
        return utc_time(min(found)) if found else None

    @property
    def has_streamed(self) -> bool:
        """Whether a stream has been up: it has had a run, or a topic has records."""
        return self.has_run or bool(self.feeds)

    def last_of(self, topic: Topic) -> Mapping[str, int]:
        """Return the time of the last record of each key of a topic, in milliseconds since 1970."""
        return {feed.key: feed.last_ms for feed in self.feeds if feed.topic is topic}


def steady_silences(topic: Topic, keys: Set[str], window: AuditWindow, gaps: Sequence[Gap]) -> Iterator[Silence]:
    """Yield the keys that should have records up to now and have none, except where recorded gaps explain it."""
    last, since_ms, until_ms = window.last_of(topic), unix_ms(window.since), unix_ms(window.until)
    for key in sorted(keys):
        if _unexplained_ms(key, last.get(key, since_ms), until_ms, gaps) <= LONGEST_SILENCE_MS:
            continue
        if key in last:
            yield Silence(f"{key}: no record since {utc_text(last[key])} UTC; {_stream(window)}")
        elif window.has_streamed and not _is_starting(window):
            yield Silence(f"{key}: no record in the last {_minutes(window)} minutes; {_stream(window)}")
        else:
            yield Silence(f"{key}: no record yet, so nothing can be checked; {_stream(window)}", is_error=False)


def idle_silences(topic: Topic, keys: Set[str], window: AuditWindow) -> Iterator[Silence]:
    """Warn of a topic that may be idle, but not for a window in which other topics have records."""
    if not keys or window.first_of(topic) is not None:
        return
    others = window.first_of(Topic.MARKET_DATA)
    if others is None:
        yield Silence(f"no record, so nothing can be checked; {_stream(window)}", is_error=False)
    elif others - window.since < (window.until - window.since) / 4:
        yield Silence(f"no record, although {Topic.MARKET_DATA.value} has some", is_error=False)


def runs_of(instance: dg.DagsterInstance, job_name: str) -> tuple[datetime | None, bool]:
    """Return the start of the oldest running run of a job, and whether the job ever had a run."""
    up = dg.RunsFilter(job_name=job_name, statuses=[dg.DagsterRunStatus.STARTED])
    began_s = [record.start_time for record in instance.get_run_records(up) if record.start_time]
    has_run = bool(instance.get_run_records(dg.RunsFilter(job_name=job_name), limit=1))
    return (datetime.fromtimestamp(min(began_s), UTC) if began_s else None), has_run


def _is_starting(window: AuditWindow) -> bool:
    return window.up_since is not None and unix_ms(window.until) - unix_ms(window.up_since) <= _START_MS


def _unexplained_ms(key: str, since_ms: int, until_ms: int, gaps: Sequence[Gap]) -> int:
    """Measure the longest part of a silence that no recorded gap covers."""
    at_ms, longest_ms = since_ms, 0
    for begin_ms, end_ms in sorted((unix_ms(gap.from_), unix_ms(gap.to)) for gap in gaps if key_of(gap.feed) == key):
        longest_ms = max(longest_ms, min(begin_ms, until_ms) - at_ms)
        at_ms = max(at_ms, end_ms)
    return max(longest_ms, until_ms - at_ms)


def _stream(window: AuditWindow) -> str:
    if window.up_since is None:
        return "no run of the job stream is up: the ticks of keep_streaming state the reason"
    return f"a run of the job stream is up since {utc_text(unix_ms(window.up_since))} UTC: see its last log lines"


def _minutes(window: AuditWindow) -> int:
    return round((window.until - window.since).total_seconds() / 60)
