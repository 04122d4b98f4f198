"""Dagster metadata of a window of polls: figures to plot, and a table."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import dagster as dg

from hedgelock_ingest.account.scheduled_polls import PollResult
from hedgelock_ingest.defs.polls.loan_report import LTV, MARKDOWN_OPTIONS, Figures, loan_figures, owed
from hedgelock_ingest.defs.polls.ltv_chart import Point
from hedgelock_ingest.defs.polls.slots import PollWindow
from hedgelock_ingest.defs.polls.window import Polled
from hedgelock_ingest.models.times import utc_time
from hedgelock_ingest.protocol.rest_messages import Part

_MAX_TABLE_ROWS = 60
_MAX_NAMED_SLOTS = 12


def figures(part: Part, polled: Polled, window: PollWindow | None, *, earlier: Sequence[Point] = ()) -> Figures:
    """
    Return the metadata of one part.

    Args:
        part: The polled part.
        polled: The results of the window.
        window: None for a poll started by hand.
        earlier: LTV before the window, for the chart.
    """
    took_ms = [result.took_s * 1000 for result in polled.results]
    is_loan = part is Part.COLLATERAL and polled.results
    found: Figures = loan_figures(polled.results, polled.prices, earlier) if is_loan else {}
    found |= {
        "polls": len(polled.results),
        "missed slots": len(polled.missed),
        "failed polls": polled.failures.total(),
        "window": str(window) if window else "one poll, by hand",
    }
    if window is not None:
        found["window end ms"] = window.end_ms
    if took_ms:
        median_ms = round(sorted(took_ms)[len(took_ms) // 2], 1)
        found |= {"duration ms, median": median_ms, "duration ms, maximum": round(max(took_ms))}
    if polled.results:
        found["polled"] = dg.MetadataValue.md(_table(polled.results[-_MAX_TABLE_ROWS:]))
    if missing := missing_text(polled):
        found["missing"] = missing
    return found


def ltv_points(events: Sequence[dg.EventLogRecord], *, since_s: float) -> list[Point]:
    """Read the LTV from earlier windows, oldest first; `since_s` is seconds since 1970."""
    return [
        (datetime.fromtimestamp(at_s, UTC), Decimal(str(found[LTV].value)))
        for at_s, found in sorted(_metadata(events), key=lambda each: each[0])
        if at_s >= since_s and LTV in found
    ]


def missing_text(polled: Polled) -> str:
    """List what is missing: slots by their time, failures by their reasons."""
    named = [f"{utc_time(slot_ms):%H:%M:%S}" for slot_ms in polled.missed]
    shown = [
        *named[:_MAX_NAMED_SLOTS],
        *([f"{len(named) - _MAX_NAMED_SLOTS} more"] if len(named) > _MAX_NAMED_SLOTS else []),
    ]
    failed = [f"{count} x {reason}" for reason, count in polled.failures.most_common(3)]
    return "; ".join([*(["no poll at " + ", ".join(shown)] if shown else []), *failed])


def _metadata(events: Sequence[dg.EventLogRecord]) -> list[tuple[float, Mapping[str, dg.MetadataValue[Any]]]]:
    reports = [(event.timestamp, event.asset_materialization or event.asset_observation) for event in events]
    return [(at_s, report.metadata) for at_s, report in reports if report is not None]


def _table(results: Sequence[PollResult]) -> str:
    import pandas as pd

    rows = pd.DataFrame([_row(result) for result in results]).fillna("")
    return str(rows.to_markdown(**MARKDOWN_OPTIONS))


def _row(result: PollResult) -> dict[str, str]:
    """Show the part that was polled; the other parts of the message are older."""
    message = result.message
    row = {"time": f"{message.timestamp:%H:%M:%S.%f}"[:-3]}
    info, loans = message.collateral_info, message.loan_info
    if result.part is Part.COLLATERAL and info is not None:
        row |= {
            "LTV": str(info.ltv),
            "debt USD": str(info.borrowed_amount),
            "collateral USD": str(info.collateral_value),
        }
    if result.part is Part.LOANS and loans is not None:
        for kind, rows in (("flexible", loans.flexible), ("fixed", loans.fixed), ("legacy", loans.legacy)):
            if rows is not None:
                row[kind] = ", ".join(owed(kind, each) for each in rows)
    if result.part is Part.WALLET:
        row |= {coin: str(balance.wallet_balance) for coin, balance in (message.balances or {}).items()}
    return row
