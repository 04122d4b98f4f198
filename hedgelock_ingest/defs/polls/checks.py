"""A check on the wallet's stream: what it told of balances must be what REST tells."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import dagster as dg

from hedgelock_ingest.account import reconciliation
from hedgelock_ingest.account.poller import PollResult
from hedgelock_ingest.account.reconciliation import TOLERANCE_MS, Comparison, Difference
from hedgelock_ingest.defs.topics.assets import polled_key
from hedgelock_ingest.errors import IngestError
from hedgelock_ingest.protocol.rest_messages import Part
from hedgelock_ingest.settings import Settings

STREAM_AGREES = "stream_agrees"
ABOUT = (
    "What the private stream told of balances, on top of an earlier poll, is what REST tells; a change younger than "
    f"{TOLERANCE_MS / 1000:g} s is under way and does not count. A warning: the stream never brought a message, and "
    "the poll has corrected `account-updates`. An error: consumers of `account-updates` see a wrong balance."
)


def stream_agrees(settings: Settings, results: Sequence[PollResult]) -> dg.AssetCheckResult:
    """Compare the last poll of the wallet with the stream."""
    if not results:
        return _result(passed=False, told="no poll told the balances", severity=dg.AssetCheckSeverity.WARN)
    try:
        found = asyncio.run(reconciliation.compare(settings, results[-1].message))
    except IngestError as error:
        told = f"what the stream told could not be read: {error}"
        return _result(passed=False, told=told, severity=dg.AssetCheckSeverity.WARN)
    return _result(
        passed=found.agrees,
        told=_words(found),
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
    told: str,
    severity: dg.AssetCheckSeverity,
    metadata: dict[str, int | dg.MarkdownMetadataValue] | None = None,
) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=polled_key(Part.WALLET),
        check_name=STREAM_AGREES,
        passed=passed,
        severity=severity,
        description=told,
        metadata=metadata,
    )


def _words(found: Comparison) -> str:
    if not found.has_stream:
        return "no stream has told of this account yet: nothing to compare with"
    told = []
    if found.missed:
        told.append(f"the private stream did not tell of {_coins(found.missed)}: is its line live, are there gaps?")
    if found.in_view:
        told.append(f"account-updates holds other balances of {_coins(found.in_view)}: does the stream run?")
    if not told:
        return f"{found.coins} coins as REST tells them; {found.frames} frames about the wallet in ten minutes"
    return "; ".join(told)


def _coins(differences: Sequence[Difference]) -> str:
    return ", ".join(each.coin for each in differences)


def _table(found: Comparison) -> str:
    rows = [
        f"| {where} | {each.coin} | {each.rest:f} | {each.told:f} | {each.rest - each.told:+f} | {_clock(each)} |"
        for where, differences in (("private stream", found.missed), ("account-updates", found.in_view))
        for each in differences
    ]
    head = ["| told by | coin | REST | told | missing | told at (UTC) |", "|---|---|---:|---:|---:|---|"]
    return "\n".join([*head, *rows, "", f"REST was asked at {found.at:%H:%M:%S} UTC."])


def _clock(difference: Difference) -> str:
    return f"{datetime.fromtimestamp(difference.observed_at_ms / 1000, UTC):%H:%M:%S}"
