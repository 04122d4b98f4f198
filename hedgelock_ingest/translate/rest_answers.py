"""REST answers in the journal: snapshots, polls, and answers that fill a gap."""

from collections.abc import Container

import msgspec

from hedgelock_ingest.errors import FrameError
from hedgelock_ingest.protocol.messages import DECODE_ERRORS, decode_problem
from hedgelock_ingest.protocol.rest_messages import (
    TRANSFERABLE,
    Part,
    Purpose,
    RestAnswer,
)
from hedgelock_ingest.protocol.rest_rows import UndecodableRow, check_results, rows_in, transferable_in
from hedgelock_ingest.translate.account import Account, Covers, Origin
from hedgelock_ingest.translate.ltv_and_loans import take_collateral, take_loans
from hedgelock_ingest.translate.record_builder import RecordBuilder

_answer = msgspec.json.Decoder(RestAnswer)


def decode_answer(raw: bytes) -> RestAnswer:
    """
    Decode a journalled answer; its rows are not checked.

    Raises:
        FrameError: The answer or one of its results is of another shape.
    """
    try:
        answer = _answer.decode(raw)
    except DECODE_ERRORS as error:
        raise FrameError(decode_problem(error)) from error
    check_results(answer)
    return answer


def take_answer(account: Account, builder: RecordBuilder, answer: RestAnswer) -> list[UndecodableRow]:
    """
    Apply an answer to the account, and return the rows that cannot be decoded.

    Raises:
        FrameError: The answer is not about an account.
    """
    origin = _origin_of(answer)
    if answer.part is Part.COLLATERAL:
        take_collateral(account, builder, answer, origin)
        return []
    if answer.part is Part.WALLET and TRANSFERABLE not in answer.results:
        answer.result("wallet")
    found = rows_in(answer)
    match answer.part:
        case Part.WALLET:
            transferable, undecodable = transferable_in(answer)
            account.take_wallet(
                builder,
                [account for _, account in found.decoded],
                answer.time_ms,
                origin,
                is_complete=_is_whole(answer) and "wallet" in answer.results and not found.incomplete,
                transferable=transferable,
            )
            found.undecodable.extend(undecodable)
        case Part.POSITIONS:
            account.take_positions(
                builder,
                found.decoded,
                answer.time_ms,
                origin,
                covers=_coverage(answer, found.incomplete) if _is_whole(answer) else None,
                healed=answer.purpose is not Purpose.POLL,
            )
        case Part.ORDERS:
            orders = sorted(found.decoded, key=lambda pair: (int(pair[1].updatedTime), pair[1].orderId))
            account.take_orders(builder, orders, answer.time_ms, healed=True)
        case Part.EXECUTIONS:
            fills = sorted(found.decoded, key=lambda pair: (int(pair[1].execTime), pair[1].seq or 0, pair[1].execId))
            account.take_executions(builder, fills, answer.time_ms, healed=True)
        case Part.LOANS:
            take_loans(account, builder, answer, found, origin)
        case Part.TRADES | Part.TICKER:
            raise FrameError("market data in an answer about the account")
    return found.undecodable


def _origin_of(answer: RestAnswer) -> Origin:
    is_poll = answer.purpose in (Purpose.POLL, Purpose.READ_BACK)
    return Origin(f"rest:{answer.part}", "rest" if is_poll else "rest-backfill", is_rest=True)


def _is_whole(answer: RestAnswer) -> bool:
    """Return whether the answer holds the complete present state."""
    return answer.purpose is not Purpose.GAP_FILL and answer.is_whole


def _coverage(answer: RestAnswer, incomplete: Container[str]) -> Covers:
    return lambda category, symbol: category not in incomplete and answer.covers(category, symbol)
