"""Rows of REST answers, decoded one by one: one that cannot be decoded does not take the others along."""

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from hedgelock_ingest.errors import FrameError
from hedgelock_ingest.protocol.messages import DECODE_ERRORS, decode_problem
from hedgelock_ingest.protocol.private_messages import (
    AccountFigures,
    DigitsOrEmpty,
    ExecutionRow,
    OrderRow,
    PositionRow,
    WalletAccount,
    WalletCoin,
)
from hedgelock_ingest.protocol.rest_messages import (
    TRANSFERABLE,
    LoanPositionResult,
    LoanRow,
    Part,
    Purpose,
    RestAnswer,
    RestTradeRow,
    TransferableResult,
)
from hedgelock_ingest.protocol.ticker_fields import REQUIRED, check_ticker


class UndecodableRow(NamedTuple):
    """A row that cannot be decoded; `result` is where it was found, and `reason` why."""

    result: str
    raw: bytes
    reason: str


class Rows[Row](NamedTuple):
    """The rows of an answer, each with the name of its result, such as its category."""

    decoded: list[tuple[str, Row]]
    undecodable: list[UndecodableRow]

    @property
    def incomplete(self) -> set[str]:
        """The results of which not all rows are known."""
        return {row.result for row in self.undecodable}


class _List(msgspec.Struct):
    rows: list[msgspec.Raw] = msgspec.field(name="list")


class _Account(AccountFigures, frozen=True):
    coins: list[msgspec.Raw] = msgspec.field(name="coin")
    kind: str = msgspec.field(name="accountType", default="UNIFIED")


_list = msgspec.json.Decoder(_List)
_loan_position = msgspec.json.Decoder(LoanPositionResult)
_account = msgspec.json.Decoder(_Account)
_coin = msgspec.json.Decoder(WalletCoin)
_transferable = msgspec.json.Decoder(TransferableResult)
_amount = msgspec.json.Decoder(DigitsOrEmpty)
_ticker = msgspec.json.Decoder(dict[str, object])


def _decode_ticker(raw: msgspec.Raw) -> dict[str, object]:
    fields = _ticker.decode(raw)
    for name in REQUIRED:
        if name not in fields:
            raise FrameError(f"Object missing required field `{name}`")
    check_ticker(fields)
    return fields


_decode_row: dict[Part, Callable[[msgspec.Raw], Any]] = {
    Part.POSITIONS: msgspec.json.Decoder(PositionRow).decode,
    Part.ORDERS: msgspec.json.Decoder(OrderRow).decode,
    Part.EXECUTIONS: msgspec.json.Decoder(ExecutionRow).decode,
    Part.LOANS: msgspec.json.Decoder(LoanRow).decode,
    Part.TRADES: msgspec.json.Decoder(RestTradeRow).decode,
    Part.TICKER: _decode_ticker,
}


def check_results(answer: RestAnswer) -> None:
    """
    Check the shape of an answer; its rows are not checked.

    Raises:
        FrameError: A result is not a list, or not the position of the loan account.
    """
    decoder: msgspec.json.Decoder[Any] = _loan_position if answer.part is Part.COLLATERAL else _list
    try:
        for name, result in answer.results.items():
            if name != TRANSFERABLE:  # the balances count without it
                decoder.decode(result)
    except DECODE_ERRORS as error:
        raise FrameError(decode_problem(error)) from error


def raw_rows(result: msgspec.Raw) -> list[msgspec.Raw]:
    """
    Return the rows of one result, undecoded.

    Raises:
        FrameError: The result is not a list.
    """
    try:
        return _list.decode(result).rows
    except DECODE_ERRORS as error:
        raise FrameError(decode_problem(error)) from error


def rows_in(answer: RestAnswer) -> Rows[Any]:
    """
    Decode the rows of all results, which are sorted by name; what may be transferred is no row.

    Raises:
        FrameError: A result is not a list.
    """
    found: Rows[Any] = Rows([], [])
    for name in sorted(answer.results.keys() - {TRANSFERABLE}):
        for raw in raw_rows(answer.results[name]):
            if answer.part is Part.WALLET:
                _add_account(found, name, raw)
            else:
                _add_row(found, name, raw, _decode_row[answer.part])
    return found


def transferable_in(answer: RestAnswer) -> tuple[dict[str, str], list[UndecodableRow]]:
    """Decode the amounts that may be transferred, by coin, without those that Bybit leaves empty."""
    result = answer.results.get(TRANSFERABLE)
    if result is None:
        return {}, []
    try:
        raw_by_coin = _transferable.decode(result).availableWithdrawalMap
    except DECODE_ERRORS as error:
        return {}, [UndecodableRow(TRANSFERABLE, bytes(result), decode_problem(error))]
    amounts: dict[str, str] = {}
    undecodable: list[UndecodableRow] = []
    for coin, raw in raw_by_coin.items():
        try:
            amounts[coin] = _amount.decode(raw)
        except DECODE_ERRORS as error:
            kept = msgspec.json.encode(TransferableResult({coin: raw}))
            undecodable.append(UndecodableRow(TRANSFERABLE, kept, decode_problem(error)))
    return {coin: amount for coin, amount in amounts.items() if amount}, undecodable


def answer_about(answer: RestAnswer, row: UndecodableRow) -> bytes:
    """
    Encode an answer that holds one row only, so that the row can be replayed once it can be decoded.

    It fills a gap and closes none: the other rows, which it lacks, do not count as gone.
    """
    raw = row.raw if row.result == TRANSFERABLE else b'{"list":[' + row.raw + b"]}"
    results = {row.result: msgspec.Raw(raw)}
    about = msgspec.structs.replace(answer, purpose=Purpose.GAP_FILL, results=results, closes_gaps=False)
    return msgspec.json.encode(about)


def _add_row(found: Rows[Any], name: str, raw: msgspec.Raw, decode: Callable[[msgspec.Raw], Any]) -> None:
    try:
        found.decoded.append((name, decode(raw)))
    except DECODE_ERRORS as error:
        found.undecodable.append(UndecodableRow(name, bytes(raw), decode_problem(error)))
    except FrameError as error:
        found.undecodable.append(UndecodableRow(name, bytes(raw), str(error)))


def _add_account(found: Rows[Any], name: str, raw: msgspec.Raw) -> None:
    try:
        account = _account.decode(raw)
    except DECODE_ERRORS as error:
        found.undecodable.append(UndecodableRow(name, bytes(raw), decode_problem(error)))
        return
    coins: Rows[WalletCoin] = Rows([], [])
    for coin in account.coins:
        _add_row(coins, name, coin, _coin.decode)
    figures = {figure: getattr(account, figure) for figure in AccountFigures.__struct_fields__}
    decoded = WalletAccount(tuple(coin for _, coin in coins.decoded), account.kind, **figures)
    found.decoded.append((name, decoded))
    for row in coins.undecodable:
        in_account = msgspec.json.encode({"accountType": account.kind, "coin": [msgspec.Raw(row.raw)]})
        found.undecodable.append(row._replace(raw=in_account))
