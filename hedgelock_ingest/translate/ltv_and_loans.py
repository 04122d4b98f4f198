"""Collateral, LTV and loans from REST answers."""

import re

import msgspec

from hedgelock_ingest.protocol.rest_messages import LoanPositionResult, LoanRow, RestAnswer
from hedgelock_ingest.protocol.rest_rows import Rows
from hedgelock_ingest.translate.absence import is_gone
from hedgelock_ingest.translate.account import Account, Origin
from hedgelock_ingest.translate.record_builder import RecordBuilder

_loan_position = msgspec.json.Decoder(LoanPositionResult)

_CAMEL_CASE_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def take_collateral(account: Account, builder: RecordBuilder, answer: RestAnswer, origin: Origin) -> None:
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
    account.add_raw(builder, answer.time_ms, origin)
    account.add_update(builder, answer.time_ms, origin)


def take_loans(
    account: Account, builder: RecordBuilder, answer: RestAnswer, rows: Rows[LoanRow], origin: Origin
) -> None:
    """
    Apply an answer about the single loans of each kind, with its rows.

    A loan that a list lacks is gone once a second, later list lacks it, too; a list with rows that cannot be decoded
    removes none.
    """
    known_ms = account.state.seen_ms.get("loans", 0)
    if answer.time_ms < known_ms:
        return
    account.state.seen_ms["loans"] = answer.time_ms
    if answer.results:  # earlier versions read back only when loans were polled
        account.state.loans = {
            kind: _loans_of(account, kind, answer, rows, known_ms) if kind in answer.results else None
            for kind in ("flexible", "fixed", "legacy")
        }
    account.add_raw(builder, answer.time_ms, origin)
    account.add_update(builder, answer.time_ms, origin)


def _loans_of(account: Account, kind: str, answer: RestAnswer, rows: Rows[LoanRow], known_ms: int) -> list[LoanRow]:
    listed = [_loan(row) for name, row in rows.decoded if name == kind]
    absent_ms, names = account.state.loans_absent_ms, {_identity(kind, loan) for loan in listed}
    for name in names:
        absent_ms.pop(name, None)
    for loan in (account.state.loans or {}).get(kind) or ():
        name = _identity(kind, loan)
        if name in names:
            continue
        if kind in rows.incomplete or not is_gone(absent_ms, name, known_ms=known_ms, list_ms=answer.time_ms):
            listed.append(loan)
    return listed


def _identity(kind: str, loan: LoanRow) -> str:
    """Identify a loan: by its id, or by its coin if it is flexible. Source: Bybit V5, Crypto Loan, list endpoints."""
    return f"{kind}:{loan.get('loan_id') or loan.get('order_id') or loan.get('loan_currency')}"


def _loan(row: LoanRow) -> LoanRow:
    return {_snake(name): None if value == "" else value for name, value in row.items()}


def _snake(name: str) -> str:
    return _CAMEL_CASE_BOUNDARY.sub("_", name).lower()
