"""Scheduled assets: collateral, loans and wallet, polled at every slot and published to `account_raw`."""

import asyncio
import time
from collections.abc import Iterator
from datetime import timedelta

import dagster as dg
from pydantic import Field

from hedgelock_ingest import logs
from hedgelock_ingest.defs.polls.checks import check_specs, evaluate
from hedgelock_ingest.defs.polls.jobs import JOB_NAME, OP_NAME
from hedgelock_ingest.defs.polls.report import figures, ltv_points
from hedgelock_ingest.defs.polls.slots import PollWindow, window_of
from hedgelock_ingest.defs.polls.window import POLLED_PARTS, Polled, intervals_ms, poll_once, poll_window
from hedgelock_ingest.defs.resources import IngestResource
from hedgelock_ingest.defs.topics.assets import LOCATION, OWNERS, feed_key, polled_key, topic_key
from hedgelock_ingest.defs.topics.columns import FIELDS, page
from hedgelock_ingest.errors import IngestError, first_cause
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.rest_messages import Part
from hedgelock_ingest.settings import Settings

type Result = dg.MaterializeResult[None] | dg.AssetObservation | dg.AssetCheckResult | dg.AssetCheckEvaluation

_LOOK_BACK_MINUTES = 60
_FRESHNESS = dg.FreshnessPolicy.time_window(fail_window=timedelta(minutes=5), warn_window=timedelta(minutes=3))

_ABOUT = {
    Part.COLLATERAL: "Debt, collateral and LTV of the crypto loan, polled every `BYBIT_COLLATERAL_POLL_INTERVAL`.",
    Part.LOANS: "All loans and their interest, polled every `BYBIT_LOAN_POLL_INTERVAL`.",
    Part.WALLET: "All coins of the unified account, polled once a minute to check their stream.",
}


class PollConfig(dg.Config):
    """Configuration of the polls: the tick of their window; without it every selected part is polled once, now."""

    tick_ms: int | None = Field(default=None, description="milliseconds since 1970; set by the schedule")


def _specs() -> list[dg.AssetSpec]:
    return [
        dg.AssetSpec(
            polled_key(part),
            deps=[feed_key("rest", part.value)],
            description=f"{_ABOUT[part]} Published to `account_raw`, which the stream reads.",
            group_name="account_polls",
            owners=OWNERS,
            kinds={"bybit", "rest", "pandas"},
            skippable=True,
            freshness_policy=_FRESHNESS,
            metadata={
                "published to": dg.MetadataValue.asset(topic_key(Topic.ACCOUNT_RAW)),
                "polled by": dg.MetadataValue.job(JOB_NAME, LOCATION),
                FIELDS: page(Topic.ACCOUNT_RAW),
            },
        )
        for part in POLLED_PARTS
    ]


@dg.multi_asset(
    name=OP_NAME,
    specs=_specs(),
    check_specs=check_specs(),
    can_subset=True,
    retry_policy=dg.RetryPolicy(max_retries=3, delay=2, backoff=dg.Backoff.EXPONENTIAL),
)
def poll_account(context: dg.AssetExecutionContext, config: PollConfig, ingest: IngestResource) -> Iterator[Result]:
    """Poll the selected parts over their window, and report the results."""
    settings = ingest.settings()
    logs.configure(settings)
    chosen = _chosen(context)
    parts = {part: interval_ms for part, interval_ms in intervals_ms(settings).items() if part in chosen}
    window = None if config.tick_ms is None else window_of(config.tick_ms)
    try:
        polled = asyncio.run(poll_once(settings, parts) if window is None else poll_window(settings, parts, window))
        for part in chosen:
            yield from _results(context, settings, part, polled[part], window=window)
    except IngestError as error:  # a transient one ends the start alone, before any poll
        raise dg.Failure(f"{type(error).__name__}: {error}", allow_retries=error.transient) from error
    except Exception as error:  # a retry would poll slots twice, and report those as missed that were polled
        cause = first_cause(error)
        raise dg.Failure(f"{type(cause).__name__}: {cause}", allow_retries=False) from error


def _chosen(context: dg.AssetExecutionContext) -> list[Part]:
    """List the parts to poll: those to be materialised, and those whose checks were selected."""
    keys = context.selected_asset_keys | {check.asset_key for check in context.selected_asset_check_keys}
    return [part for part in POLLED_PARTS if polled_key(part) in keys]


def _results(
    context: dg.AssetExecutionContext, settings: Settings, part: Part, polled: Polled, *, window: PollWindow | None
) -> Iterator[Result]:
    instance = context.instance
    before = [
        *instance.fetch_materializations(polled_key(part), limit=_LOOK_BACK_MINUTES).records,
        *instance.fetch_observations(polled_key(part), limit=_LOOK_BACK_MINUTES).records,
    ]
    earlier = ltv_points(before, since_s=time.time() - _LOOK_BACK_MINUTES * 60)
    results = list(evaluate(settings, part, polled))
    planned = {check.name for check in context.selected_asset_check_keys if check.asset_key == polled_key(part)}
    in_result = [check for check in results if check.check_name in planned]
    if polled_key(part) not in context.selected_asset_keys:
        yield from in_result
        return
    metadata = figures(part, polled, window, earlier=earlier)
    if polled.results:
        yield dg.MaterializeResult(asset_key=polled_key(part), metadata=metadata, check_results=in_result)
    else:  # nothing new is in Kafka: the asset must not count as fresh
        yield dg.AssetObservation(polled_key(part), description="no new poll in this window", metadata=metadata)
        yield from in_result
    yield from (_unplanned(check) for check in results if check.check_name not in planned)


def _unplanned(check: dg.AssetCheckResult) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey.from_coercible(check.asset_key or ""),
        check_name=check.check_name or "",
        passed=check.passed,
        metadata=check.metadata,
        severity=check.severity,
        description=check.description,
    )
