"""
Whether data flows: told at once when that changes, as a line of the run and as an asset check.

The run of the stream evaluates the check by itself. Nobody can execute it: a result of another run would stand before
all that the stream tells later, since Dagster keeps one result a run and shows that of the newest one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import dagster as dg

from hedgelock_ingest.defs.known_settings import Known
from hedgelock_ingest.defs.stream.report import condition, troubles
from hedgelock_ingest.defs.topics.assets import topic_key
from hedgelock_ingest.models.topics import STEADY, Topic
from hedgelock_ingest.status import Statistics

CHECK = "data_flows"

_ABOUT = (
    "Whether records flow into Kafka right now, told by the run of job `stream` within seconds of a change, and each "
    "ten minutes. An error: Kafka is away or was never there, a feed has no live line, or the journal has trouble. "
    "So is a run that has ended without a successor; of one that was killed freshness and the ticks of "
    "`keep_streaming` tell."
)
_TOPICS = sorted(STEADY)
"""Where an operator looks first; more than one also keeps Dagster from offering to execute the check."""
_STARTING_S = 10.0
"""So long a run may take until Kafka and all lines are there."""
_SETTLED_S = 1.5
"""So long trouble lasts until it is told: a line that comes again at once is none."""
_LONGEST_S = 600.0


@dataclass(slots=True)
class Watch:
    """Decides when to tell whether data flows; `now_s` is a monotonic clock."""

    was_well: bool | None = None
    last_event_s: float = 0.0
    wrong_since_s: float | None = None

    def is_due(self, now_s: float, *, is_well: bool) -> bool:
        """Say whether to tell now: at first, when it has changed, and now and then."""
        if is_well:
            self.wrong_since_s = None
        elif self.wrong_since_s is None:
            self.wrong_since_s = now_s
        if is_well is self.was_well:
            return now_s - self.last_event_s >= _LONGEST_S
        patience_s = _STARTING_S if self.was_well is None else _SETTLED_S
        return self.wrong_since_s is None or now_s - self.wrong_since_s >= patience_s

    def told(self, now_s: float, *, is_well: bool) -> None:
        """Note what was told."""
        self.was_well, self.last_event_s = is_well, now_s


class Reporter:
    """Tells for one run."""

    def __init__(self, context: dg.OpExecutionContext, shards: Sequence[str]) -> None:
        """Prepare; `shards` are all there are."""
        self._context = context
        self._shards = shards
        self._watch = Watch()

    def tell(self, now: Statistics, now_s: float, *, also: bool) -> None:
        """Tell whether data flows, if it is time to; `also` writes the line in any case."""
        is_well = not troubles(now)
        is_due = self._watch.is_due(now_s, is_well=is_well)
        if is_due:
            for evaluation in evaluations(now, self._shards):
                self._context.log_event(evaluation)  # type: ignore[arg-type]  # Dagster takes it, and says it does not
        if also or (is_due and is_well is not self._watch.was_well):
            say = self._context.log.info if is_well else self._context.log.error
            say(condition(now))
        if is_due:
            self._watch.told(now_s, is_well=is_well)


def report_end(context: dg.OpExecutionContext, shard: str, shards: Sequence[str]) -> None:
    """Tell that the run ends and no other one is known to follow: what it said before is no longer so."""
    why = "TROUBLE: no run carries this shard since this one ended; the next one tells, and the ticks of keep_streaming"
    for evaluation in _evaluations(shard, shards, passed=False, why=why):
        context.log_event(evaluation)  # type: ignore[arg-type]  # as above


def evaluations(now: Statistics, shards: Sequence[str]) -> Iterator[dg.AssetCheckEvaluation]:
    """Judge a shard, on each topic that has the check."""
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


def checks(known: Known) -> dg.AssetChecksDefinition:
    """Make the checks of all shards known to Dagster."""

    @dg.multi_asset_check(
        name=CHECK,
        specs=[_spec(topic, shard, known.shards) for topic in _TOPICS for shard in known.shards],
        description="The run of job `stream` tells this by itself.",
    )
    def data_flows() -> Iterator[dg.AssetCheckResult]:
        raise dg.Failure("the run of job stream tells this by itself", allow_retries=False)
        yield

    return data_flows


def _spec(topic: Topic, shard: str, shards: Sequence[str]) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(_name(shard, shards), asset=topic_key(topic), description=_ABOUT)


def _name(shard: str, shards: Sequence[str]) -> str:
    return CHECK if len(shards) == 1 else f"{CHECK}_{shard.replace('-', '_')}"
