"""The audit: topics are read back, and holes, dead letters and completeness are judged by checks."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg
from pydantic import Field

from hedgelock_ingest.audit import dead_letters, gaps
from hedgelock_ingest.audit.gaps import FeedProof, Proof
from hedgelock_ingest.defs.audit.proven import HORIZON, OVERLAP, PROOF, Proven, first_unproven, proven_in, wrong_of
from hedgelock_ingest.defs.audit.silence import (
    Flow,
    Silence,
    resting_silences,
    seen_in,
    silent_since,
    steady_silences,
    up_since,
)
from hedgelock_ingest.defs.known_settings import Known
from hedgelock_ingest.defs.resources import IngestResource
from hedgelock_ingest.defs.run_tags import tags_of
from hedgelock_ingest.defs.stream.jobs import JOB_NAME as STREAM
from hedgelock_ingest.defs.topics.assets import OWNERS, keys_expected, topic_key
from hedgelock_ingest.errors import IngestError
from hedgelock_ingest.models.findings import Gap
from hedgelock_ingest.models.topics import STEADY, Topic

JOB_NAME = "check_topics"
AUDIT = dg.AssetKey(["audit"])
"""
The checks are this asset's, not the topics': a topic is materialised every minute, and Dagster holds a check for not
evaluated as soon as its asset is newer.
"""

UNDER_WAY = timedelta(seconds=10)
_PROVEN = (Topic.MARKET_DATA, Topic.MARKET_TRADES, Topic.MARKET_ORDER_BOOKS, Topic.MARKET_LIQUIDATIONS)
_SHOWN = 10
_LAST_AUDITS = 50
_EVER = datetime.min.replace(tzinfo=UTC)


class AuditConfig(dg.Config):
    """How far back to look; without anything set, to where the last audit ended, an hour at most."""

    minutes: float | None = Field(default=None, gt=0, le=24 * 60, description="look back so far, whatever was audited")


def _specs() -> list[dg.AssetCheckSpec]:
    complete = (
        "In the last hour nothing is missing or doubled but what the recorded gaps name, and what never rests has "
        "records up to now; else an error. A warning where there is nothing to judge."
    )
    holes = "No gap ended in the last hour: an open one is an error, a healed one a warning."
    letters = "Every frame of the last hour was understood; else a warning."
    return [
        dg.AssetCheckSpec("no_holes", asset=AUDIT, description=holes),
        dg.AssetCheckSpec("no_dead_letters", asset=AUDIT, description=letters),
        *(dg.AssetCheckSpec(_name(topic), asset=AUDIT, description=complete) for topic in _PROVEN),
    ]


def _name(topic: Topic) -> str:
    return f"{topic.value.replace('-', '_')}_is_complete"


@dg.asset(
    key=AUDIT,
    deps=[topic_key(topic) for topic in (*_PROVEN, Topic.INGEST_GAPS, Topic.INGEST_DEAD_LETTERS)],
    check_specs=_specs(),
    description="What reading the topics back says of the last hour. Each audit reads what the last one has not, and "
    "judges the hour. Needs no stream to be there.",
    group_name="audit",
    owners=OWNERS,
    kinds={"kafka"},
    freshness_policy=dg.FreshnessPolicy.time_window(
        fail_window=timedelta(minutes=35), warn_window=timedelta(minutes=25)
    ),
)
def audit(
    context: dg.AssetExecutionContext, config: AuditConfig, ingest: IngestResource
) -> Iterator[dg.MaterializeResult[None]]:
    """Read what was published since the last audit, and judge the last hour."""
    settings = ingest.settings()
    known = Known(settings)
    until = datetime.now(UTC) - UNDER_WAY
    horizon = until - (HORIZON if config.minutes is None else timedelta(minutes=config.minutes))
    audits = proven_in(context.instance.fetch_materializations(AUDIT, limit=_LAST_AUDITS).records, since=_EVER)
    earlier = [each for each in audits if each.until > horizon]
    since = horizon if config.minutes is not None else max(_unread(known, earlier, since=horizon), horizon)
    up = up_since(context.instance, STREAM)
    try:
        proof = asyncio.run(gaps.verify(settings, since=since, until=until))
        found_gaps = asyncio.run(gaps.list_gaps(settings, since=horizon))
        letters = asyncio.run(dead_letters.letters(settings))
    except IngestError as error:
        raise dg.Failure(f"{type(error).__name__}: {error}", allow_retries=error.transient) from error
    proven = _proven(proof, audits)
    late = [letter for letter in letters if letter.at >= horizon]
    flow = Flow(until, up, [*earlier, proven])
    complete = [_complete(topic, proof, flow, _silences(topic, known, flow, found_gaps)) for topic in _PROVEN]
    results = [_holes(found_gaps), _letters(late), *complete]
    yield dg.MaterializeResult(
        metadata={
            "records": sum(feed.records for feed in proof.feeds),
            "gaps": len(found_gaps),
            "dead letters": len(late),
            "failed checks": sum(not result.passed for result in results),
            "span": f"{since:%H:%M:%S} to {until:%H:%M:%S} UTC",
            PROOF: proven.as_metadata(),
        },
        check_results=results,
    )


def _holes(found: Sequence[Gap]) -> dg.AssetCheckResult:
    is_open = [gap for gap in found if gap.healed == "no"]
    lines = [
        f"- {gap.from_:%H:%M:%S} to {gap.to:%H:%M:%S} {gap.feed}: {gap.reason}; healed: {gap.healed}" for gap in found
    ]
    return dg.AssetCheckResult(
        check_name="no_holes",
        passed=not found,
        severity=dg.AssetCheckSeverity.ERROR if is_open else dg.AssetCheckSeverity.WARN,
        description=f"{len(found)} gaps, {len(is_open)} of them not healed",
        metadata={"gaps": len(found), "open": len(is_open), "last": dg.MetadataValue.md("\n".join(lines[-_SHOWN:]))},
    )


def _letters(late: Sequence[dead_letters.Letter]) -> dg.AssetCheckResult:
    lines = [f"- {letter.at:%H:%M:%S} `{letter.id}` {letter.feed}: {letter.reason}" for letter in late]
    return dg.AssetCheckResult(
        check_name="no_dead_letters",
        passed=not late,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(late)} dead letters; the job replay_dead_letters tries them again",
        metadata={"letters": len(late), "last": dg.MetadataValue.md("\n".join(lines[-_SHOWN:]))},
    )


def _unread(known: Known, earlier: Sequence[Proven], *, since: datetime) -> datetime:
    unread = first_unproven(earlier, since=since) - OVERLAP
    expected = {topic: keys_expected(known, topic) for topic in STEADY}
    return min(unread, silent_since(expected, earlier) or unread)


def _proven(proof: Proof, audits: Sequence[Proven]) -> Proven:
    seen = {topic.value: seen_in(topic, proof.feeds, audits) for topic in _PROVEN}
    return Proven(
        proof.since,
        proof.until,
        {topic.value: wrong for topic in _PROVEN if (wrong := _contradictions(topic, proof))},
        {topic: first_ms for topic, (first_ms, _) in seen.items() if first_ms is not None},
        {topic.value: seen[topic.value][1] for topic in STEADY},
    )


def _silences(topic: Topic, known: Known, flow: Flow, found: Sequence[Gap]) -> list[Silence]:
    keys = keys_expected(known, topic)
    if topic in STEADY:
        return list(steady_silences(topic, keys, flow, found))
    return list(resting_silences(topic, keys, flow)) if topic is Topic.MARKET_TRADES else []


def _complete(topic: Topic, proof: Proof, flow: Flow, silences: Sequence[Silence]) -> dg.AssetCheckResult:
    feeds = [feed for feed in proof.feeds if feed.topic is topic]
    wrong = wrong_of(topic.value, flow.spans)
    records = sum(feed.records for feed in feeds)
    is_error = bool(wrong) or any(silence.is_error for silence in silences)
    told = [*wrong[:_SHOWN], *(silence.told for silence in silences[:_SHOWN])]
    since = max(min(span.since for span in flow.spans), flow.first_of(topic) or flow.until)
    return dg.AssetCheckResult(
        check_name=_name(topic),
        passed=not told,
        severity=dg.AssetCheckSeverity.ERROR if is_error else dg.AssetCheckSeverity.WARN,
        description="; ".join(told) or _well(topic, flow, f"{records} records since {proof.since:%H:%M:%S}"),
        metadata={
            "records": records,
            "keys": len(feeds),
            "from": f"{proof.since:%H:%M:%S}",
            "to": f"{proof.until:%H:%M:%S}",
            "proven since": f"{since:%H:%M:%S}",
            "contradictions": len(wrong),
            "silent": len(silences),
        },
    )


def _well(topic: Topic, flow: Flow, counted: str) -> str:
    since, first = min(span.since for span in flow.spans), flow.first_of(topic)
    if first is None:
        return f"no record since {since:%H:%M:%S} UTC: its feeds rest, or the settings ask for none"
    if first - since > timedelta(milliseconds=gaps.LONGEST_SILENCE_MS):
        return f"nothing missing or doubled since {first:%H:%M:%S} UTC, the first record of the hour; {counted}"
    return f"nothing missing or doubled since {since:%H:%M:%S} UTC; {counted}"


def _contradictions(topic: Topic, proof: Proof) -> list[str]:
    return [line for feed in proof.feeds if feed.topic is topic for line in _contradictions_of(feed)]


def _contradictions_of(feed: FeedProof) -> Iterator[str]:
    yield from (f"{feed.key}: {hole}" for hole in feed.holes)
    if feed.doubled:
        yield f"{feed.key}: {feed.doubled} doubled"
    if feed.out_of_order:
        yield f"{feed.key}: {feed.out_of_order} out of order"


check_job = dg.define_asset_job(
    JOB_NAME,
    selection=[AUDIT],
    description="Reads the topics back: holes, dead letters, completeness.",
    executor_def=dg.in_process_executor,
    tags=tags_of("check", longest_s=900),
)

check_schedule = dg.ScheduleDefinition(
    name="check_every_ten_minutes",
    job=check_job,
    cron_schedule="*/10 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Reads back what was published since the last audit, and judges the last hour.",
)
