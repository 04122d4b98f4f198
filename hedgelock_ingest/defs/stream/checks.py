"""
The asset check `data_flows`: reported within seconds of a change, as a log line of the run and as a check.

Only the run of the stream evaluates the check. It cannot be executed separately: a result from another run would hide
all later results of the stream, since Dagster keeps one result per run and shows that of the newest run.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import dagster as dg

from hedgelock_ingest.defs.known_settings import KnownSettings
from hedgelock_ingest.defs.stream.report import condition, troubles
from hedgelock_ingest.defs.topics.assets import topic_key
from hedgelock_ingest.models.topics import STEADY, Topic
from hedgelock_ingest.status import Statistics

CHECK = "data_flows"

_ABOUT = (
    "Records flow into Kafka now; the run of job `stream` reports it within seconds of a change, and every ten "
    "minutes. An error: Kafka is away or was never reached, a feed has no live line, the journal has trouble, or the "
    "run has ended without a successor. A killed run shows in the freshness and in the ticks of `keep_streaming`."
)
_TOPICS = sorted(STEADY)
"""The topics with the check; with more than one, Dagster does not offer to execute it."""
_START_GRACE_S = 10.0
"""Time that a run may take until Kafka and all lines are connected."""
_TROUBLE_GRACE_S = 1.5
"""Time that trouble must last before it is reported, so that a line that reconnects at once is not."""
_REPORT_EVERY_S = 600.0


@dataclass(slots=True)
class Watch:
    """Decides when to report the check; `now_s` is a monotonic clock."""

    was_well: bool | None = None
    last_event_s: float = 0.0
    wrong_since_s: float | None = None

    def is_due(self, now_s: float, *, is_well: bool) -> bool:
        """Return whether a report is due: the first one, after a change, or every `_REPORT_EVERY_S`."""
        if is_well:
            self.wrong_since_s = None
        elif self.wrong_since_s is None:
            self.wrong_since_s = now_s
        if is_well is self.was_well:
            return now_s - self.last_event_s >= _REPORT_EVERY_S
        grace_s = _START_GRACE_S if self.was_well is None else _TROUBLE_GRACE_S
        return self.wrong_since_s is None or now_s - self.wrong_since_s >= grace_s

    def record(self, now_s: float, *, is_well: bool) -> None:
        """Record that a report was made."""
        self.was_well, self.last_event_s = is_well, now_s


class Reporter:
    """Reports whether data flows, for one run."""

    def __init__(self, context: dg.OpExecutionContext, shards: Sequence[str]) -> None:
        """Create a reporter; `shards` are all shards of the stream."""
        self._context = context
        self._shards = shards
        self._watch = Watch()

    def report(self, now: Statistics, now_s: float, *, writes_line: bool) -> None:
        """Report whether data flows, if a report is due; `writes_line` writes the log line in any case."""
        is_well = not troubles(now)
        is_due = self._watch.is_due(now_s, is_well=is_well)
        if is_due:
            for evaluation in evaluations(now, self._shards):
                self._context.log_event(evaluation)  # type: ignore[arg-type]  # Dagster accepts it at run time
        if writes_line or (is_due and is_well is not self._watch.was_well):
            write = self._context.log.info if is_well else self._context.log.error
            write(condition(now))
        if is_due:
            self._watch.record(now_s, is_well=is_well)


def report_end(context: dg.OpExecutionContext, shard: str, shards: Sequence[str]) -> None:
    """Report that the run ends without a known successor, which makes its earlier results obsolete."""
    why = "TROUBLE: no run carries this shard since this one ended; see the next run, and the ticks of keep_streaming"
    for evaluation in _evaluations(shard, shards, passed=False, why=why):
        context.log_event(evaluation)  # type: ignore[arg-type]  # as above


def evaluations(now: Statistics, shards: Sequence[str]) -> Iterator[dg.AssetCheckEvaluation]:
    """Evaluate the check of a shard, on each topic that has it."""
    return _evaluations(now.shard, shards, passed=not troubles(now), why=condition(now))


def _evaluations(shard: str, shards: Sequence[str], *, passed: bool, why: str) -> Iterator[dg.AssetCheckEvaluation]:
    for topic in _TOPICS:
        yield dg.AssetCheckEvaluation(
            asset_key=topic_key(topic),
            check_name=_name(shard, shards),
            passed=passed,
            severity=dg.AssetCheckSeverity.ERROR,
            description=why,
        )


def checks(known: KnownSettings) -> dg.AssetChecksDefinition:
    """Define the checks of all shards."""

    @dg.multi_asset_check(
        name=CHECK,
        specs=[_spec(topic, shard, known.shards) for topic in _TOPICS for shard in known.shards],
        description="Evaluated by the run of job `stream`.",
    )
    def data_flows() -> Iterator[dg.AssetCheckResult]:
        raise dg.Failure(
            "this check is evaluated by the run of job stream, and cannot be executed", allow_retries=False
        )
        yield

    return data_flows


def _spec(topic: Topic, shard: str, shards: Sequence[str]) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(_name(shard, shards), asset=topic_key(topic), description=_ABOUT)


def _name(shard: str, shards: Sequence[str]) -> str:
    return CHECK if len(shards) == 1 else f"{CHECK}_{shard.replace('-', '_')}"
