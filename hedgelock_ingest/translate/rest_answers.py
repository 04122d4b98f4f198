"""REST answers in the journal: snapshots, polls, and answers that fill a gap."""

import re
from decimal import Decimal
from typing import Any

import msgspec

from hedgelock_ingest.errors import FrameError
from hedgelock_ingest.protocol.loans import collateral_figures
from hedgelock_ingest.protocol.rest_messages import (
    ExecutionsResult,
    LoanPositionResult,
    LoansResult,
    OrdersResult,
    Part,
    PositionsResult,
    Purpose,
    RestAnswer,
    TradesResult,
    WalletResult,
)
from hedgelock_ingest.translate.account import Account
from hedgelock_ingest.translate.record_builder import RecordBuilder

_answer = msgspec.json.Decoder(RestAnswer)
_wallet = msgspec.json.Decoder(WalletResult)
_positions = msgspec.json.Decoder(PositionsResult)
_orders = msgspec.json.Decoder(OrdersResult)
_executions = msgspec.json.Decoder(ExecutionsResult)
_loan_position = msgspec.json.Decoder(LoanPositionResult)
_loans = msgspec.json.Decoder(LoansResult)

_CAMEL_CASE_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def decode_answer(raw: bytes) -> RestAnswer:
    """
    Decode a journalled answer, and check all its rows.

    Raises:
        FrameError: The answer or one of its rows is malformed.
    """
    try:
        answer = _answer.decode(raw)
    except msgspec.DecodeError as error:
        raise FrameError(str(error)[:300]) from error
    check_answer(answer)
    return answer


def check_answer(answer: RestAnswer) -> None:
    """
    Check all rows of an answer.

    Raises:
        FrameError: A row is malformed.
    """
    try:
        for result in answer.results.values():
            _DECODERS[answer.part].decode(result)
    except (msgspec.DecodeError, KeyError) as error:
        raise FrameError(str(error)[:300]) from error


def take_answer(account: Account, builder: RecordBuilder, answer: RestAnswer) -> None:
    """
    Apply an answer to the account.

    Raises:
        FrameError: The answer is not about an account.
    """
    origin = f"rest:{answer.part}"
    match answer.part:
        case Part.WALLET:
            accounts = _wallet.decode(_required_result(answer, "wallet")).list
            account.take_wallet(builder, accounts, answer.time_ms, origin=origin, is_complete=True)
        case Part.POSITIONS:
            rows = [
                (category, row)
                for category, result in _sorted_results(answer)
                for row in _positions.decode(result).list
            ]
            account.take_positions(
                builder,
                rows,
                answer.time_ms,
                origin=origin,
                is_complete=answer.purpose is not Purpose.GAP_FILL,
                healed=answer.purpose is not Purpose.POLL,
            )
        case Part.ORDERS:
            orders = [
                (category, row) for category, result in _sorted_results(answer) for row in _orders.decode(result).list
            ]
            orders.sort(key=lambda pair: (int(pair[1].updatedTime), pair[1].orderId))
            account.take_orders(builder, orders, answer.time_ms, healed=True)
        case Part.EXECUTIONS:
            fills = [
                (category, row)
                for category, result in _sorted_results(answer)
                for row in _executions.decode(result).list
            ]
            fills.sort(key=lambda pair: (int(pair[1].execTime), pair[1].seq or 0, pair[1].execId))
            account.take_executions(builder, fills, answer.time_ms, healed=True)
        case Part.COLLATERAL:
            _take_collateral(account, builder, answer, origin)
        case Part.LOANS:
            _take_loans(account, builder, answer, origin)
        case Part.TRADES:
            raise FrameError("public trades in an answer about the account")


def _take_collateral(account: Account, builder: RecordBuilder, answer: RestAnswer, origin: str) -> None:
    position = _loan_position.decode(_required_result(answer, "position"))
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


def _take_loans(account: Account, builder: RecordBuilder, answer: RestAnswer, origin: str) -> None:
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


def _required_result(answer: RestAnswer, name: str) -> msgspec.Raw:
    if name not in answer.results:
        raise FrameError(f"an answer about {answer.part} without the result {name}")
    return answer.results[name]


def _sorted_results(answer: RestAnswer) -> list[tuple[str, msgspec.Raw]]:
    return sorted(answer.results.items())


def _snake(name: str) -> str:
    return _CAMEL_CASE_BOUNDARY.sub("_", name).lower()


_DECODERS: dict[Part, msgspec.json.Decoder[Any]] = {
    Part.WALLET: _wallet,
    Part.POSITIONS: _positions,
    Part.ORDERS: _orders,
    Part.EXECUTIONS: _executions,
    Part.COLLATERAL: _loan_position,
    Part.LOANS: _loans,
    Part.TRADES: msgspec.json.Decoder(TradesResult),
}
