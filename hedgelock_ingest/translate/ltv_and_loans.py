"""Collateral, LTV and loans from REST answers."""

import re
from decimal import Decimal

import msgspec

from hedgelock_ingest.protocol.loans import collateral_figures
from hedgelock_ingest.protocol.rest_messages import LoanPositionResult, LoansResult, RestAnswer
from hedgelock_ingest.translate.account import Account
from hedgelock_ingest.translate.record_builder import RecordBuilder

_loan_position = msgspec.json.Decoder(LoanPositionResult)
_loans = msgspec.json.Decoder(LoansResult)

_CAMEL_CASE_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def take_collateral(account: Account, builder: RecordBuilder, answer: RestAnswer, origin: str) -> None:
    """
    Apply an answer about the loan account: debt, collateral and LTV as Bybit computes them, in USD.

    Raises:
        FrameError: The answer is not about the loan account.
    """
    position = _loan_position.decode(answer.result("position"))
    if answer.time_ms < account.state.seen_ms.get("collateral", 0):
        return
    # Bybit may leave ltv empty when there is no loan: nothing is owed.
    ltv = position.ltv or "0"
    account.state.loan = {
        "loan_amount": position.totalDebt,
        "collateral_value": position.totalCollateral,
        "ltv": ltv,
    }
    account.state.seen_ms["collateral"] = answer.time_ms
    figures = collateral_figures(Decimal(position.totalCollateral), Decimal(position.totalDebt))
    ratio, free = figures.collateral_ratio, figures.free_collateral
    account.add_raw(
        builder,
        answer.time_ms,
        origin,
        collateral_info={
            "ltv": ltv,
            "collateral_value": position.totalCollateral,
            "borrowed_amount": position.totalDebt,
            "collateral_ratio": None if ratio is None else format(ratio, "f"),
            "free_collateral": format(free, "f"),
        },
    )
    account.add_update(builder, answer.time_ms)


def take_loans(account: Account, builder: RecordBuilder, answer: RestAnswer, origin: str) -> None:
    """Apply an answer about the single loans of each kind."""
    if answer.time_ms < account.state.seen_ms.get("loans", 0):
        return
    account.state.seen_ms["loans"] = answer.time_ms
    rows = {
        kind: [
            {_snake(name): None if value == "" else value for name, value in row.items()}
            for row in _loans.decode(answer.results[kind]).list
        ]
        if kind in answer.results
        else None
        for kind in ("flexible", "fixed", "legacy")
    }
    account.add_raw(builder, answer.time_ms, origin, loan_info=rows)
    account.add_update(builder, answer.time_ms)


def _snake(name: str) -> str:
    return _CAMEL_CASE_BOUNDARY.sub("_", name).lower()
