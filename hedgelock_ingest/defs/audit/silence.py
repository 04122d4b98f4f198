"""Whether a topic that should flow does: an hour without a record must not pass for a complete one."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import dagster as dg

from hedgelock_ingest.audit.gaps import LONGEST_SILENCE_MS, FeedProof, key_of
from hedgelock_ingest.defs.audit.proven import HORIZON, Proven
from hedgelock_ingest.models.findings import Gap
from hedgelock_ingest.models.topics import Topic

_START_MS = 60_000
"""So long after its start a stream may take until its first record."""
_MOST_OF_THE_HOUR = timedelta(minutes=50)


class Silence(NamedTuple):
    """What an operator is told of a topic without records; no error where nothing was ever there to be missed."""

    told: str
    is_error: bool = True


class Flow(NamedTuple):
    """
    What is known of the topics' records when an audit ends.

    `up_since` is when the runs of the stream that are up began; None without any. `spans` are the audits of the hour,
    this one with them.
    """

    until: datetime
    up_since: datetime | None
    spans: Sequence[Proven]

    def first_of(self, topic: Topic) -> datetime | None:
        """Say when a topic got its first record in the hour."""
        found = [span.first_ms[topic.value] for span in self.spans if topic.value in span.first_ms]
        return _time(min(found)) if found else None

    def last_of(self, topic: Topic) -> Mapping[str, int]:
        """Say when each key of a topic got its last record, in milliseconds since 1970."""
        return last_of(topic, self.spans)


def last_of(topic: Topic, spans: Iterable[Proven]) -> Mapping[str, int]:
    """Collect when each key of a topic got its last record."""
    last: dict[str, int] = {}
    for span in spans:
        for key, at_ms in span.last_ms.get(topic.value, {}).items():
            last[key] = max(at_ms, last.get(key, 0))
    return last


def seen_in(topic: Topic, feeds: Iterable[FeedProof], earlier: Iterable[Proven]) -> tuple[int | None, dict[str, int]]:
    """Give the first record of a topic in a span, and the last one of each key, in the span or before."""
    found = [feed for feed in feeds if feed.topic is topic]
    last = {**last_of(topic, earlier), **{feed.key: feed.last_ms for feed in found}}
    return min((feed.first_ms for feed in found), default=None), last


def silent_since(expected: Mapping[Topic, Set[str]], spans: Sequence[Proven]) -> datetime | None:
    """
    Say where the silences of the expected keys begin in which the last audit ended.

    The next one reads them again: what was under way may have come, or the gap may have been recorded.
    """
    if not spans:
        return None
    end_ms = _ms(spans[-1].until)
    last = [at for topic, keys in expected.items() for key, at in last_of(topic, spans).items() if key in keys]
    return _time(min(silent)) if (silent := [at for at in last if end_ms - at > LONGEST_SILENCE_MS]) else None


def steady_silences(topic: Topic, keys: Set[str], flow: Flow, gaps: Sequence[Gap]) -> Iterator[Silence]:
    """Name the keys that should have records up to now, and have none; what recorded gaps explain is left out."""
    last, until_ms = flow.last_of(topic), _ms(flow.until)
    for key in sorted(keys & last.keys()):
        if _unexplained_ms(key, last[key], until_ms, gaps) > LONGEST_SILENCE_MS:
            yield Silence(f"{key}: no record since {_clock(last[key])}; {_stream(flow)}")
    never = sorted(keys - last.keys())
    up = [at for at in (flow.up_since, *map(flow.first_of, Topic)) if at is not None]
    if never and up and until_ms - _ms(min(up)) > _START_MS:
        yield from (Silence(f"{key}: no record at all; {_stream(flow)}") for key in never)
    elif never and not last:
        yield Silence(f"no record yet, so nothing can be said; {_stream(flow)}", is_error=False)


def resting_silences(topic: Topic, keys: Set[str], flow: Flow) -> Iterator[Silence]:
    """Warn of a topic that may rest but not for an hour in which the others flow."""
    if not keys or flow.first_of(topic) is not None:
        return
    others = flow.first_of(Topic.MARKET_DATA)
    if others is not None and flow.until - others > _MOST_OF_THE_HOUR:
        yield Silence(f"no record in the last hour, while {Topic.MARKET_DATA.value} has some", is_error=False)
    elif others is None:
        yield Silence(f"no record in the last hour, so nothing can be said; {_stream(flow)}", is_error=False)


def up_since(instance: dg.DagsterInstance, job_name: str) -> datetime | None:
    """Say when the oldest run of the stream began that is up."""
    up = dg.RunsFilter(job_name=job_name, statuses=[dg.DagsterRunStatus.STARTED])
    began_s = [record.start_time for record in instance.get_run_records(up) if record.start_time]
    return datetime.fromtimestamp(min(began_s), UTC) if began_s else None


def _unexplained_ms(key: str, since_ms: int, until_ms: int, gaps: Sequence[Gap]) -> int:
    """Measure the longest part of a silence that no recorded gap covers; before the hour nothing is known of gaps."""
    at_ms, longest_ms = max(since_ms, until_ms - HORIZON // timedelta(milliseconds=1)), 0
    for begin_ms, end_ms in sorted((_ms(gap.from_), _ms(gap.to)) for gap in gaps if key_of(gap.feed) == key):
        longest_ms = max(longest_ms, min(begin_ms, until_ms) - at_ms)
        at_ms = max(at_ms, end_ms)
    return max(longest_ms, until_ms - at_ms)


def _stream(flow: Flow) -> str:
    if flow.up_since is None:
        return "no run of the job stream is up: the ticks of keep_streaming say why"
    return f"a run of the job stream is up since {_clock(_ms(flow.up_since))}: its last lines say more"


def _clock(at_ms: int) -> str:
    return f"{_time(at_ms):%Y-%m-%d %H:%M:%S} UTC"


def _time(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)
