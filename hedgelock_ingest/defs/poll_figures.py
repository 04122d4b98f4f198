"""What a window of polls shows in Dagster: figures to plot, a table to read, checks on slots and LTV."""

from collections.abc import Iterator, Sequence
from decimal import Decimal

import dagster as dg
import pandas as pd

from hedgelock_ingest.defs.lineage import polled_key
from hedgelock_ingest.defs.poll_window import Polled
from hedgelock_ingest.defs.slots import Window
from hedgelock_ingest.models.account import AccountRaw, CollateralInfo
from hedgelock_ingest.polls import PollResult
from hedgelock_ingest.protocol.loans import LIQUIDATION_LTV, MARGIN_CALL_LTV, price_factor_at
from hedgelock_ingest.protocol.rest_wire import Part

type Figure = float | int | str | dg.MarkdownMetadataValue

INITIAL_LTV = Decimal("0.80")
"""Above it Bybit lends no more. Source: as `MARGIN_CALL_LTV`."""

_END = "window end ms"
_ROWS = 60


def figures(part: Part, polled: Polled, window: Window | None, lost: Sequence[int]) -> dict[str, Figure]:
    """Give the metadata of one part; `lost` are slots before the window that no run asked at."""
    took_ms = [result.took_s * 1000 for result in polled.results]
    found: dict[str, Figure] = {
        "polls": len(polled.results),
        "missed slots": len(polled.missed) + len(lost),
        "failed polls": polled.troubles.total(),
        "window": str(window) if window else "once, by hand",
    }
    if window is not None:
        found[_END] = window.end_ms
    if took_ms:
        found |= {"took ms, median": round(sorted(took_ms)[len(took_ms) // 2], 1), "took ms, most": round(max(took_ms))}
        found["polled"] = dg.MetadataValue.md(_table(polled.results).tail(_ROWS).to_markdown(index=False))
        if part is Part.COLLATERAL and (info := polled.results[-1].message.collateral_info) is not None:
            found |= _loan_figures(info)
    if polled.troubles:
        found["troubles"] = "; ".join(f"{count} x {reason}" for reason, count in polled.troubles.most_common(3))
    return found


def last_end_ms(event: dg.EventLogEntry | None) -> int | None:
    """Read where the window of the last materialisation ended."""
    if event is None or event.asset_materialization is None or _END not in event.asset_materialization.metadata:
        return None
    return int(str(event.asset_materialization.metadata[_END].value))


def checks(part: Part, polled: Polled, lost: Sequence[int]) -> Iterator[dg.AssetCheckResult]:
    """Judge one part."""
    missing = len(polled.missed) + len(lost) + polled.troubles.total()
    told = "every slot was polled" if not missing else f"{missing} polls are missing; see the metadata of the asset"
    yield dg.AssetCheckResult(
        asset_key=polled_key(part),
        check_name="every_slot_polled",
        passed=not missing,
        severity=dg.AssetCheckSeverity.ERROR if not polled.results else dg.AssetCheckSeverity.WARN,
        description=told,
    )
    if part is Part.COLLATERAL:
        yield _ltv_check([result.message for result in polled.results])


def _ltv_check(messages: Sequence[AccountRaw]) -> dg.AssetCheckResult:
    key = polled_key(Part.COLLATERAL)
    ltvs = [message.collateral_info.ltv for message in messages if message.collateral_info is not None]
    if not ltvs:
        return dg.AssetCheckResult(
            asset_key=key, check_name="ltv_is_safe", passed=False, description="no poll told the LTV"
        )
    highest = max(ltvs)
    is_called = highest >= MARGIN_CALL_LTV
    return dg.AssetCheckResult(
        asset_key=key,
        check_name="ltv_is_safe",
        passed=highest < INITIAL_LTV,
        severity=dg.AssetCheckSeverity.ERROR if is_called else dg.AssetCheckSeverity.WARN,
        description=f"highest LTV {highest}; initial {INITIAL_LTV}, margin call {MARGIN_CALL_LTV}",
        metadata={"highest LTV": float(highest)},
    )


def _loan_figures(info: CollateralInfo) -> dict[str, Figure]:
    found: dict[str, Figure] = {
        "LTV": float(info.ltv),
        "debt USD": float(info.borrowed_amount),
        "collateral USD": float(info.collateral_value),
    }
    for name, threshold in (("margin call", MARGIN_CALL_LTV), ("liquidation", LIQUIDATION_LTV)):
        factor = price_factor_at(threshold, debt=info.borrowed_amount, moving=info.collateral_value, steady=Decimal(0))
        if factor is not None:
            found[f"fall of collateral to {name} %"] = round(float(1 - factor) * 100, 2)
    return found


def _table(results: Sequence[PollResult]) -> pd.DataFrame:
    return pd.DataFrame([_row(result.message) for result in results])


def _row(message: AccountRaw) -> dict[str, str]:
    row = {"time": f"{message.timestamp:%H:%M:%S.%f}"[:-3]}
    if (info := message.collateral_info) is not None:
        row |= {
            "LTV": str(info.ltv),
            "debt USD": str(info.borrowed_amount),
            "collateral USD": str(info.collateral_value),
        }
    if (loans := message.loan_info) is not None:
        for kind, rows in (("flexible", loans.flexible), ("fixed", loans.fixed), ("legacy", loans.legacy)):
            if rows is not None:
                row[kind] = ", ".join(f"{each.get('loan_currency')} {each.get('total_debt', '')}" for each in rows)
    for coin, balance in (message.balances or {}).items():
        row[coin] = str(balance.wallet_balance)
    return row
