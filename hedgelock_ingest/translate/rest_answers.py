"""REST answers in the journal: snapshots, polls, and answers that fill a gap."""

from typing import Any

import msgspec

from hedgelock_ingest.errors import FrameError
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
from hedgelock_ingest.translate.ltv_and_loans import take_collateral, take_loans
from hedgelock_ingest.translate.record_builder import RecordBuilder

_answer = msgspec.json.Decoder(RestAnswer)
_wallet = msgspec.json.Decoder(WalletResult)
_positions = msgspec.json.Decoder(PositionsResult)
_orders = msgspec.json.Decoder(OrdersResult)
_executions = msgspec.json.Decoder(ExecutionsResult)


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
            accounts = _wallet.decode(answer.result("wallet")).list
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
            take_collateral(account, builder, answer, origin)
        case Part.LOANS:
            take_loans(account, builder, answer, origin)
        case Part.TRADES:
            raise FrameError("public trades in an answer about the account")


def _sorted_results(answer: RestAnswer) -> list[tuple[str, msgspec.Raw]]:
    return sorted(answer.results.items())


_DECODERS: dict[Part, msgspec.json.Decoder[Any]] = {
    Part.WALLET: _wallet,
    Part.POSITIONS: _positions,
    Part.ORDERS: _orders,
    Part.EXECUTIONS: _executions,
    Part.COLLATERAL: msgspec.json.Decoder(LoanPositionResult),
    Part.LOANS: msgspec.json.Decoder(LoansResult),
    Part.TRADES: msgspec.json.Decoder(TradesResult),
}
