"""Health, readiness and statistics of a running shard, without private data."""

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from hedgelock_ingest.bybit.key_gate import KeyState
from hedgelock_ingest.bybit.line import LineStatus
from hedgelock_ingest.models.times import utc_time
from hedgelock_ingest.models.values import Timestamp
from hedgelock_ingest.pipeline.latency import LatencyWindow
from hedgelock_ingest.pipeline.poll_loop import PollStats
from hedgelock_ingest.protocol.channels import category_and_symbol
from hedgelock_ingest.protocol.circuit_breaker import BreakerState
from hedgelock_ingest.protocol.frames import PRIVATE
from hedgelock_ingest.service import Service

_PERCENTILES = (50, 90, 99, 99.9)


class _StatusModel(BaseModel):
    model_config = ConfigDict(frozen=True)


class Health(_StatusModel):
    """Health of the process; `failed` only when it cannot recover without help; reasons are sentences."""

    status: Literal["ok", "degraded", "failed"]
    reasons: list[str]


class Readiness(_StatusModel):
    """Whether frames flow from every feed into Kafka right now; reasons are sentences."""

    status: Literal["ready", "not_ready"]
    reasons: list[str]


class Latency(_StatusModel):
    """Milliseconds of the last minute by percentile, null without a measurement; and the count since the start."""

    percentiles_ms: dict[str, float | None]
    count: int


class JournalSection(_StatusModel):
    """Backlog of the journal; at `bound_bytes` the lines are closed."""

    durable_position: int
    acknowledged_position: int
    lag_frames: int
    backlog_bytes: int
    bound_bytes: int
    trouble: str | None


class KafkaSection(_StatusModel):
    """The circuit breaker around Kafka, and why a topic accepts nothing for now, by topic."""

    state: BreakerState
    reason: str | None
    openings: int
    producers_opened: int
    blocked_topics: dict[str, str]


class LineSection(_StatusModel):
    """One line; `reconnects` counts connections that were lost."""

    name: str
    state: str
    channels: int
    generation: int
    reconnects: int
    rotations: int
    frames: int
    last_cause: str | None
    last_data_at: Timestamp | None


class KeySection(_StatusModel):
    """State of the API key, without the key itself."""

    state: KeyState
    reason: str | None
    warnings: list[str]
    expires_at: Timestamp | None


class RestSection(_StatusModel):
    """Bybit's REST: its circuit breaker, request counts, and how far our clock is ahead of Bybit's."""

    state: BreakerState
    reason: str | None
    openings: int
    requests: int
    failures: int
    clock_ahead_s: float | None


class GapFillSection(_StatusModel):
    """Gap filling by REST; `given_up` counts feeds whose gaps were not filled."""

    answers: int
    failures: int
    given_up: int


class StandInSection(_StatusModel):
    """REST in place of lines: answers about tickers, wallet and positions while their feeds had no live line."""

    answers: int
    failures: int


class PollSection(_StatusModel):
    """One poll; `missed` counts ticks skipped because the previous answer was still pending."""

    answers: int
    failures: int
    missed: int
    last_answer_at: Timestamp | None
    trouble: str | None


class AccountSection(_StatusModel):
    """The account without its amounts: parts never received, parts unavailable and why, the polls."""

    missing_parts: list[str]
    troubles: dict[str, str]
    polls: dict[str, PollSection]


class Statistics(_StatusModel):
    """
    Totals since the start, rates over ten seconds, latencies over a minute.

    `feeds_refused` are those of symbols that Bybit does not serve, while it serves others of the category;
    `feeds_without_line` are the others without a live line.
    """

    shard: str
    started_at: Timestamp
    uptime_s: float
    frames_received: int
    frames_acknowledged: int
    frames_per_s: float
    records: dict[str, int]
    receive_to_acknowledged: Latency
    exchange_to_acknowledged: Latency
    gaps: int
    copies_dropped: int
    late_dropped: int
    dropped: dict[str, int]
    dead_letters: int
    records_refused: int
    reconnects: int
    feeds_without_line: list[str]
    feeds_refused: list[str] = []
    pauses: int
    journal: JournalSection
    kafka: KafkaSection
    rest: RestSection
    healing: GapFillSection
    stand_in: StandInSection
    key: KeySection
    account: AccountSection | None
    lines: list[LineSection]


def health(service: Service) -> Health:
    """Report whether the process can continue without help; while it recovers from something, it is `degraded`."""
    reasons = [*not_ready_reasons(service), *service.rest_service.symbols.problems(), *account_reasons(service)]
    reasons += service.journal.recovery.findings
    return Health(status="degraded" if reasons else "ok", reasons=reasons)


def readiness(service: Service) -> Readiness:
    """
    Report whether frames flow: Kafka accepts records, each feed has a live line, the journal is not full.

    A symbol that Bybit refuses counts only if it refuses all of the category: no restart and no wait would help.
    """
    reasons = not_ready_reasons(service)
    return Readiness(status="not_ready" if reasons else "ready", reasons=reasons)


def not_ready_reasons(service: Service) -> list[str]:
    """List everything that stops frames from flowing."""
    now_s = time.monotonic()
    reasons = []
    if service.stream.breaker.state(now_s) is not BreakerState.CLOSED:
        reasons.append(f"Kafka is away, frames go to the journal: {service.stream.breaker.why(now_s)}")
    for topic, reason in service.stream.blocked_topics.items():
        reasons.append(f"the topic {topic} accepts nothing, its records wait in the journal: {reason}")
    reasons += [f"no live line for {feed}" for feed in _feeds_without_line(service)]
    if service.stream.is_paused:
        reasons.append(f"lines are closed, the journal accepts no frames: {service.stream.stats.journal_trouble}")
    return reasons


def account_reasons(service: Service) -> list[str]:
    """List the problems of REST, the key and the account."""
    rest_service = service.rest_service
    rest, key = rest_service.rest.status, rest_service.gate.status
    reasons = []
    if rest.state is not BreakerState.CLOSED and rest.openings:
        reasons.append(f"Bybit's REST is away: {rest.reason}")
    if not rest_service.has_account:
        return reasons
    if key.state is not KeyState.ACCEPTED:
        reasons.append(f"private lines wait, the API key is {key.state}: {key.reason or 'Bybit has not answered yet'}")
    reasons += key.warnings
    missing = service.stream.missing_account_parts
    if missing:
        reasons.append(f"no merged view of the account yet, missing: {', '.join(missing)}")
    return [*reasons, *(f"{part} is unavailable: {reason}" for part, reason in _troubles(service).items())]


def statistics(service: Service) -> Statistics:
    """Collect the statistics."""
    now_s, stats, journal, breaker = time.monotonic(), service.stream.stats, service.journal, service.stream.breaker
    records = dict(sorted(stats.records.items()))
    return Statistics(
        shard=service.shard.name,
        started_at=_at(stats.started_ns),
        uptime_s=round((time.time_ns() - stats.started_ns) / 1e9, 1),
        frames_received=sum(line.frames for line in service.line_statuses),
        frames_acknowledged=stats.frames_acknowledged,
        frames_per_s=round(stats.rate_per_s(), 1),
        records=records,
        receive_to_acknowledged=_latency(stats.receive_to_acknowledged, now_s),
        exchange_to_acknowledged=_latency(stats.exchange_to_acknowledged, now_s),
        gaps=records.get("ingest-gaps", 0),
        copies_dropped=service.receiver.copies,
        late_dropped=service.receiver.late,
        dropped=dict(_without(stats.dropped, "dead_letters")),
        dead_letters=records.get("ingest-dead-letters", 0),
        records_refused=stats.refused,
        reconnects=sum(line.reconnects for line in service.line_statuses),
        feeds_without_line=_feeds_without_line(service),
        feeds_refused=sorted(_feeds_refused(service)),
        pauses=stats.pauses,
        journal=JournalSection(
            durable_position=stats.durable_position,
            acknowledged_position=stats.position,
            lag_frames=stats.lag_frames,
            backlog_bytes=journal.backlog_bytes,
            bound_bytes=journal.bound_bytes,
            trouble=stats.journal_trouble,
        ),
        kafka=KafkaSection(
            state=breaker.state(now_s),
            reason=breaker.why(now_s),
            openings=breaker.openings,
            producers_opened=stats.producer_opened,
            blocked_topics=dict(service.stream.blocked_topics),
        ),
        rest=_rest(service),
        healing=_gap_fill(service),
        stand_in=_stand_in(service),
        key=_key(service),
        account=_account(service) if service.rest_service.has_account else None,
        lines=[_line(status) for status in service.line_statuses],
    )


def _feeds_without_line(service: Service) -> list[str]:
    return sorted(set(service.receiver.without_line) - _feeds_refused(service))


def _feeds_refused(service: Service) -> set[str]:
    refused = service.receiver.refused
    served = {category_and_symbol(feed)[0] for feed in service.plan.feeds if feed not in refused} - {PRIVATE}
    return {feed for feed in refused if category_and_symbol(feed)[0] in served}


def _rest(service: Service) -> RestSection:
    rest = service.rest_service.rest.status
    return RestSection(
        state=rest.state,
        reason=rest.reason,
        openings=rest.openings,
        requests=rest.requests,
        failures=rest.failures,
        clock_ahead_s=None if rest.clock_ahead_s is None else round(rest.clock_ahead_s, 3),
    )


def _gap_fill(service: Service) -> GapFillSection:
    stats = service.rest_service.gap_fill.stats
    return GapFillSection(answers=stats.answers, failures=stats.failures, given_up=stats.given_up)


def _stand_in(service: Service) -> StandInSection:
    stats = service.rest_service.stand_in.stats
    return StandInSection(answers=stats.answers, failures=stats.failures)


def _key(service: Service) -> KeySection:
    key = service.rest_service.gate.status
    return KeySection(state=key.state, reason=key.reason, warnings=key.warnings, expires_at=key.expires_at)


def _account(service: Service) -> AccountSection:
    polling = service.rest_service.polling
    return AccountSection(
        missing_parts=service.stream.missing_account_parts,
        troubles=_troubles(service),
        polls={} if polling is None else {part.value: _poll(stats) for part, stats in polling.stats.items()},
    )


def _troubles(service: Service) -> dict[str, str]:
    rest_service = service.rest_service
    polled = {} if rest_service.polling is None else rest_service.polling.stats
    troubles = {part.value: stats.trouble for part, stats in polled.items() if stats.trouble is not None}
    return rest_service.gap_fill.stats.troubles | troubles


def _poll(stats: PollStats) -> PollSection:
    return PollSection(
        answers=stats.answers,
        failures=stats.failures,
        missed=stats.missed,
        last_answer_at=None if stats.last_answer_ns is None else _at(stats.last_answer_ns),
        trouble=stats.trouble,
    )


def _line(status: LineStatus) -> LineSection:
    return LineSection(
        name=status.name,
        state=status.state,
        channels=status.channels,
        generation=status.generation,
        reconnects=status.reconnects,
        rotations=status.rotations,
        frames=status.frames,
        last_cause=status.last_cause,
        last_data_at=None if status.last_data_ns is None else _at(status.last_data_ns),
    )


def _latency(window: LatencyWindow, now_s: float) -> Latency:
    return Latency(percentiles_ms=window.percentiles_ms(*_PERCENTILES, now_s=now_s), count=window.count)


def _without(counts: Mapping[str, int], name: str) -> dict[str, int]:
    return {key: count for key, count in sorted(counts.items()) if key != name}


def _at(at_ns: int) -> datetime:
    return utc_time(at_ns // 1_000_000)
