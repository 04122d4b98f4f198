"""Checks of the polls: no slot is missing, LTV is safe, and the balances of the stream equal those from REST."""

import asyncio
from collections.abc import Iterator, Sequence
from decimal import Decimal

import dagster as dg

from hedgelock_ingest.account import reconciliation
from hedgelock_ingest.account.reconciliation import TOLERANCE_MS, Comparison, Difference
from hedgelock_ingest.account.scheduled_polls import PollResult
from hedgelock_ingest.defs.polls.report import missing_text
from hedgelock_ingest.defs.polls.window import POLLED_PARTS, Polled
from hedgelock_ingest.defs.topics.assets import polled_key
from hedgelock_ingest.errors import IngestError
from hedgelock_ingest.models.times import utc_time
from hedgelock_ingest.protocol.loans import LIQUIDATION_LTV, MARGIN_CALL_LTV
from hedgelock_ingest.protocol.rest_messages import Part
from hedgelock_ingest.settings import Settings

EVERY_SLOT_POLLED = "every_slot_polled"
LTV_IS_SAFE = "ltv_is_safe"
STREAM_AGREES = "stream_agrees"

INITIAL_LTV = Decimal("0.80")
"""Above it Bybit lends no more. Source: as `MARGIN_CALL_LTV`."""

_SLOTS_ABOUT = "No poll was missed, and none failed."
_LTV_ABOUT = "LTV is below Bybit's margin call (error) and below the initial LTV (warning)."
_STREAM_ABOUT = (
    "The balances from the private stream, applied to an earlier poll, equal those from REST; a change younger than "
    f"{TOLERANCE_MS / 1000:g} s is in flight and does not count. A warning: the stream lacks a message, and the poll "
    "has corrected `account-updates`. An error: consumers of `account-updates` see a wrong balance."
)


def check_specs() -> list[dg.AssetCheckSpec]:
    """Describe the checks of all polls."""
    return [
        *(
            dg.AssetCheckSpec(EVERY_SLOT_POLLED, asset=polled_key(part), description=_SLOTS_ABOUT)
            for part in POLLED_PARTS
        ),
        dg.AssetCheckSpec(LTV_IS_SAFE, asset=polled_key(Part.COLLATERAL), description=_LTV_ABOUT),
        dg.AssetCheckSpec(STREAM_AGREES, asset=polled_key(Part.WALLET), description=_STREAM_ABOUT),
    ]


def evaluate(settings: Settings, part: Part, polled: Polled) -> Iterator[dg.AssetCheckResult]:
    """Evaluate the checks of one part on the polls of a window."""
    yield _every_slot_polled(part, polled)
    if part is Part.COLLATERAL:
        yield _ltv_is_safe(polled.results)
    if part is Part.WALLET:
        yield _stream_agrees(settings, polled.results)


def _every_slot_polled(part: Part, polled: Polled) -> dg.AssetCheckResult:
    missing = len(polled.missed) + polled.failures.total()
    description = f"{missing} polls are missing: {missing_text(polled)}" if missing else "every slot was polled"
    return dg.AssetCheckResult(
        asset_key=polled_key(part),
        check_name=EVERY_SLOT_POLLED,
        passed=not missing,
        severity=dg.AssetCheckSeverity.ERROR if not polled.results else dg.AssetCheckSeverity.WARN,
        description=description,
    )


def _ltv_is_safe(results: Sequence[PollResult]) -> dg.AssetCheckResult:
    """Check the highest LTV: a warning from the initial LTV on, an error from the margin call on."""
    key = polled_key(Part.COLLATERAL)
    infos = [result.message.collateral_info for result in results]
    ltvs = [info.ltv for info in infos if info is not None]
    if not ltvs:
        return dg.AssetCheckResult(
            asset_key=key, check_name=LTV_IS_SAFE, passed=False, description="no poll returned the LTV"
        )
    highest = max(ltvs)
    is_called = highest >= MARGIN_CALL_LTV
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=LTV_IS_SAFE,
        passed=highest < INITIAL_LTV,
        severity=dg.AssetCheckSeverity.ERROR if is_called else dg.AssetCheckSeverity.WARN,
        description=f"highest LTV {highest}; initial {INITIAL_LTV}, margin call {MARGIN_CALL_LTV}, "
        f"liquidation {LIQUIDATION_LTV}",
        metadata={"highest LTV": float(highest)},
    )


def _stream_agrees(settings: Settings, results: Sequence[PollResult]) -> dg.AssetCheckResult:
    """Compare the last poll of the wallet with the stream."""
    if not results:
        return _stream_result(
            passed=False, description="no poll returned balances", severity=dg.AssetCheckSeverity.WARN
        )
    try:
        found = asyncio.run(reconciliation.compare(settings, results[-1].message))
    except IngestError as error:
        description = f"the balances from the stream could not be read: {error}"
        return _stream_result(passed=False, description=description, severity=dg.AssetCheckSeverity.WARN)
    return _stream_result(
        passed=found.agrees,
        description=_stream_summary(found),
        severity=dg.AssetCheckSeverity.ERROR if found.in_view else dg.AssetCheckSeverity.WARN,
        metadata={
            "coins": found.coins,
            "frames about the wallet": found.frames,
            "differences": len(found.missed) + len(found.in_view),
            **({} if found.agrees else {"what differs": dg.MetadataValue.md(_table(found))}),
        },
    )


def _stream_result(
    *,
    passed: bool,
    description: str,
    severity: dg.AssetCheckSeverity,
    metadata: dict[str, int | dg.MarkdownMetadataValue] | None = None,
) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=polled_key(Part.WALLET),
        check_name=STREAM_AGREES,
        passed=passed,
        severity=severity,
        description=description,
        metadata=metadata,
    )


def _stream_summary(found: Comparison) -> str:
    if not found.has_stream:
        return "no stream has reported this account yet: nothing to compare with"
    problems = []
    if found.missed:
        problems.append(
            f"the private stream lacks a change of {_coins(found.missed)}: check that its line is live, and its gaps"
        )
    if found.in_view:
        problems.append(
            f"account-updates has other balances of {_coins(found.in_view)}: check that the stream is running"
        )
    if not problems:
        return f"{found.coins} coins equal to REST; {found.frames} frames about the wallet in ten minutes"
    return "; ".join(problems)


def _coins(differences: Sequence[Difference]) -> str:
    return ", ".join(each.coin for each in differences)


def _table(found: Comparison) -> str:
    rows = [
        _table_row(source, each)
        for source, differences in (("private stream", found.missed), ("account-updates", found.in_view))
        for each in differences
    ]
    head = ["| source | coin | REST | source's balance | missing | as of (UTC) |", "|---|---|---:|---:|---:|---|"]
    return "\n".join([*head, *rows, "", f"REST was polled at {found.at:%H:%M:%S} UTC."])


def _table_row(source: str, found: Difference) -> str:
    at = utc_time(found.observed_at_ms)
    missing = found.rest - found.observed
    return f"| {source} | {found.coin} | {found.rest:f} | {found.observed:f} | {missing:+f} | {at:%H:%M:%S} |"
