"""A check on the wallet's stream: its balances must equal those from REST."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import dagster as dg

from hedgelock_ingest.account import reconciliation
from hedgelock_ingest.account.reconciliation import TOLERANCE_MS, Comparison, Difference
from hedgelock_ingest.account.scheduled_polls import PollResult
from hedgelock_ingest.defs.topics.assets import polled_key
from hedgelock_ingest.errors import IngestError
from hedgelock_ingest.protocol.rest_messages import Part
from hedgelock_ingest.settings import Settings

STREAM_AGREES = "stream_agrees"
ABOUT = (
    "The balances from the private stream, applied to an earlier poll, equal those from REST; a change younger than "
    f"{TOLERANCE_MS / 1000:g} s is in flight and does not count. A warning: the stream lacks a message, and the poll "
    "has corrected `account-updates`. An error: consumers of `account-updates` see a wrong balance."
)


def stream_agrees(settings: Settings, results: Sequence[PollResult]) -> dg.AssetCheckResult:
    """Compare the last poll of the wallet with the stream."""
    if not results:
        return _result(passed=False, description="no poll returned balances", severity=dg.AssetCheckSeverity.WARN)
    try:
        found = asyncio.run(reconciliation.compare(settings, results[-1].message))
    except IngestError as error:
        description = f"the balances from the stream could not be read: {error}"
        return _result(passed=False, description=description, severity=dg.AssetCheckSeverity.WARN)
    return _result(
        passed=found.agrees,
        description=_summary(found),
        severity=dg.AssetCheckSeverity.ERROR if found.in_view else dg.AssetCheckSeverity.WARN,
        metadata={
            "coins": found.coins,
            "frames about the wallet": found.frames,
            "differences": len(found.missed) + len(found.in_view),
            **({} if found.agrees else {"what differs": dg.MetadataValue.md(_table(found))}),
        },
    )


def _result(
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


def _summary(found: Comparison) -> str:
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
    at = datetime.fromtimestamp(found.observed_at_ms / 1000, UTC)
    missing = found.rest - found.observed
    return f"| {source} | {found.coin} | {found.rest:f} | {found.observed:f} | {missing:+f} | {at:%H:%M:%S} |"
