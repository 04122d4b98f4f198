"""A day of account activity: every figure in Kafka equals the exchange's at every step."""

from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import pytest

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.processes.account import (
    AccountStage,
    account_staged,
    check_chain,
    figures_of,
    in_ms,
    sent_positions,
    steps,
)
from hedgelock_ingest_tests.processes.stage import eventually

_RAW_PARTS = ("balances", "positions", "collateral_info", "loan_info")
_PARTS_BY_ORIGIN = {
    "websocket:wallet": "balances",
    "rest:wallet": "balances",
    "websocket:position": "positions",
    "rest:positions": "positions",
    "rest:collateral": "collateral_info",
    "rest:loans": "loan_info",
}
_POSITION_PATH = "/v5/crypto-loan-common/position"
_FLEXIBLE_PATH = "/v5/crypto-loan-flexible/ongoing-coin"


async def test_every_figure_of_a_day_equals_the_ledger_of_the_exchange(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """With orders, loans and falling prices nothing is lost or doubled, and no digit is changed."""
    async with account_staged(kafka, topic_prefix, tmp_path) as stage:
        await stage.begun()
        began = await stage.exchange.account()
        first = await stage.view_is_right("the account as it was")
        await _live_a_day(stage)
        last = await stage.view_is_right("the account at the end")
        await stage.stream.stopped()
        account = await stage.exchange.account()  # with the answer to the last poll
        updates = await stage.values(Topic.ACCOUNT_UPDATES)
        raw = await stage.values(Topic.ACCOUNT_RAW)
        executions = await stage.values(Topic.EXECUTIONS)
        orders = await stage.values(Topic.ORDER_UPDATES)
        changes = await stage.values(Topic.POSITION_CHANGES)
        assert await stage.values(Topic.INGEST_DEAD_LETTERS) == []
        assert await stage.values(Topic.INGEST_GAPS) == []

    assert Decimal(first["ltv"]) < Decimal("0.85") <= Decimal(last["ltv"]) < Decimal("0.95")
    _check_balances(updates, account)
    _check_loans(updates, account)
    _check_positions(updates, changes, account)
    _check_events(executions, orders, account, known=len(began["executions"]))
    _check_raw(raw, account)


@pytest.mark.proof
async def test_every_figure_of_a_busy_hour_equals_what_the_exchange_sent(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """While prices fall to the margin call and to liquidation, frames and polls keep their digits and order."""
    hectic = {"rate": 200, "account_life_s": 0.05, "course": "liquidation", "course_s": 6.0, "seed": 11}
    async with account_staged(kafka, topic_prefix, tmp_path, scenario=hectic) as stage:
        await stage.begun()

        async def liquidated() -> bool:
            causes = [state["cause"] for state in (await stage.exchange.account())["states"]]
            return "liquidated" in causes

        await eventually("the liquidation", liquidated, timeout_s=30)
        observed = await stage.exchange.account()

        async def published() -> bool:
            debts = [update["loan_amount"] for update in await stage.values(Topic.ACCOUNT_UPDATES)]
            last = observed["executions"][-1]["execId"]
            return debts[-1] == "0" and last in [one["exec_id"] for one in await stage.values(Topic.EXECUTIONS)]

        await eventually("the end of the debt", published)
        await stage.stream.stopped()
        account = await stage.exchange.account()
        updates = await stage.values(Topic.ACCOUNT_UPDATES)
        executions = await stage.values(Topic.EXECUTIONS)
        changes = await stage.values(Topic.POSITION_CHANGES)
        assert await stage.values(Topic.INGEST_DEAD_LETTERS) == []

    ltvs = [Decimal(update["ltv"]) for update in updates]
    assert ltvs[0] < Decimal("0.85") <= max(ltvs)
    _check_balances(updates, account)
    _check_loans(updates, account)
    _check_positions(updates, changes, account)
    for symbol in ("BTCUSDT", "ETHUSDT"):
        sent = [row["execId"] for row in account["executions"] if row["symbol"] == symbol]
        streamed = [one["exec_id"] for one in executions if one["symbol"] == symbol and not one["healed"]]
        assert streamed == _same_stretch(sent, streamed)
        assert len(streamed) > 10


async def _live_a_day(stage: AccountStage) -> None:
    act, right = stage.exchange.act, stage.view_is_right
    await act("deposit", coin="USDC", amount="1234.567891")
    await right("a deposit")
    await act("fill", symbol="BTCUSDT", side="Sell", qty="0.031", fills=3)
    await right("three fills of one order")
    mark = Decimal((await stage.exchange.account())["positions"][0]["markPrice"])
    resting = await act("place_order", symbol="BTCUSDT", side="Sell", qty="0.02", price=f"{mark * 2:.1f}")
    await act("fill_order", order_id=resting, qty="0.005", fills=2)
    await right("a part of an order")
    await act("fill_order", order_id=resting)
    await right("the rest of it")
    called_off = await act("place_order", symbol="ETHUSDT", side="Buy", qty="1", price="1000")
    await act("cancel_order", order_id=called_off)
    await act("fill", symbol="ETHUSDT", side="Buy", qty="2", fills=4)
    await right("a second position")
    await act("borrow", coin="USDT", amount="2500.25")
    await right("a loan drawn")
    await _polled(stage, debts=2)
    await act("add_collateral", coin="BTC", amount="0.125")
    await right("collateral added")
    await act("repay", coin="USDT", amount="1000.125")
    await right("a part of the loan repaid")
    await _polled(stage, debts=3)
    await act("accrue_interest", hours=3)
    await right("interest")
    await _polled(stage, debts=4)
    await act("fill", symbol="ETHUSDT", side="Sell", qty="2")
    await right("a position closed")
    while Decimal((await stage.exchange.account())["books"]["loans"]["ltv"]) < Decimal("0.855"):
        for symbol in ("BTCUSDT", "ETHUSDT"):
            await act("move_price", symbol=symbol, factor=0.93)
        await right("a fall of the price")
    await act("fill", symbol="BTCUSDT", side="Sell", qty="0.1", fills=2)
    causes = [state["cause"] for state in (await stage.exchange.account())["states"]]
    assert "margin called" in causes


async def _polled(stage: AccountStage, *, debts: int) -> None:
    """Wait until so many states of the debt were polled: the merged view does not wait for the poll of the loans."""

    async def polled() -> bool:
        return len(_polled_debts(await stage.values(Topic.ACCOUNT_RAW))) == debts

    await eventually(f"a poll of debt {debts}", polled)


def _polled_debts(raw: list[dict[str, Any]]) -> set[str]:
    return {row["total_debt"] for message in raw for row in (message["loan_info"] or {}).get("flexible", [])}


def _check_balances(updates: list[dict[str, Any]], account: dict[str, Any]) -> None:
    """
    Check that each change of a balance is published in order: no state of a coin is skipped and none is invented.

    Coin by coin, since a list of REST is ahead of some frames and not counted as later than others.
    """
    states, views = [state["balances"] for state in account["states"]], [update["balances"] for update in updates]
    for coin in {coin for view in views for coin in view}:
        seen = steps([view[coin] for view in views if coin in view])
        assert seen == _same_stretch(steps([state[coin] for state in states if coin in state]), seen), coin
    assert len(steps(views)) >= 8


def _check_loans(updates: list[dict[str, Any]], account: dict[str, Any]) -> None:
    """Check that debt, collateral and LTV of each view are those of the answer with the view's time."""
    answers = {one["at_ms"]: one["result"] for one in account["answers"] if one["path"] == _POSITION_PATH}
    for update in updates:
        sent = answers[in_ms(update["seen"]["collateral"])]
        assert update["loan_amount"] == sent["totalDebt"]
        assert update["collateral_value"] == sent["totalCollateral"]
        assert update["ltv"] == sent["ltv"]
    assert len({update["ltv"] for update in updates}) >= 6


def _check_positions(updates: list[dict[str, Any]], changes: list[dict[str, Any]], account: dict[str, Any]) -> None:
    """Check that the exchange sent each position, and that each change begins where the last one ended."""
    sent = sent_positions(account)
    published = [one for update in updates for one in update["positions"]] + [change["after"] for change in changes]
    for position in published:
        name = position["symbol"], in_ms(position["updated_at"]), position["sequence"]
        assert figures_of(position) in sent[name], position
    for change in changes:
        before, after = change["before"], change["after"]
        if before is not None and None not in (before["unrealised_pnl"], after["unrealised_pnl"]):
            pnl = [
                Decimal(one[name]) for one in (after, before) for name in ("cumulative_realised_pnl", "unrealised_pnl")
            ]
            assert Decimal(change["pnl_change"]) == pnl[0] + pnl[1] - pnl[2] - pnl[3]
    assert check_chain(changes) >= 7


def _check_events(
    executions: list[dict[str, Any]], orders: list[dict[str, Any]], account: dict[str, Any], *, known: int
) -> None:
    """Check that each fill and each state of an order is in its topic once, in the exchange's order."""
    assert len(account["executions"]) - known == 3 + 2 + 1 + 4 + 1 + 2
    for symbol in ("BTCUSDT", "ETHUSDT"):
        sent = [row for row in account["executions"] if row["symbol"] == symbol]
        found = [one for one in executions if one["symbol"] == symbol]
        fields = {"exec_id": "execId", "price": "execPrice", "size": "execQty", "fee": "execFee", "exec_pnl": "execPnl"}
        streamed = [one for one in found if not one["healed"]]
        sent_new = sent[-len(streamed) :]
        assert [[one[name] for name in fields] for one in streamed] == [
            [row[name] for name in fields.values()] for row in sent_new
        ]
        # Fills before the stream's start may have been requested from REST, once.
        assert len({one["exec_id"] for one in found}) == len(found) <= len(sent)

        frames = [frame for frame in account["frames"] if frame["topic"] == "order"]
        rows = [row for frame in frames for row in frame["data"] if row["symbol"] == symbol]
        states = [(row["orderId"], row["orderStatus"], row["cumExecQty"]) for row in rows]
        seen_states = [
            (one["order_id"], one["status"], one["filled_quantity"])
            for one in orders
            if one["symbol"] == symbol and not one["healed"]
        ]
        assert seen_states == states[-len(seen_states) :]
    assert sum(not one["healed"] for one in executions) == len(account["executions"]) - known
    assert sum(not one["healed"] for one in orders) == 1 + 3 + 2 + 1 + 1 + 1


def _same_stretch[T](sent: list[T], seen: list[T]) -> list[T]:
    """Return the stretch of `sent` that starts with the first of `seen` and is as long: nothing may be left out."""
    begin = sent.index(seen[0])
    return sent[begin : begin + len(seen)]


def _check_raw(raw: list[dict[str, Any]], account: dict[str, Any]) -> None:
    """Check that the collector's message has its exact shape, all parts that were seen, and right sums."""
    names = {"schema_version", "source", "trace_id", "timestamp", "account_id", *_RAW_PARTS, "origin"}
    names |= {"other_balances", "margin", "balances_detail", "as_of"}
    seen: set[str] = set()
    available = set()
    frames = [frame for frame in account["frames"] if frame["topic"] == "wallet"]
    margins = {(frame["creationTime"], row["totalEquity"]) for frame in frames for row in frame["data"]}
    flexible = {one["at_ms"]: one["result"]["list"] for one in account["answers"] if one["path"] == _FLEXIBLE_PATH}
    debts = _polled_debts(raw)
    for message in raw:
        assert set(message) == names
        assert message["source"] == "collector"
        part = _PARTS_BY_ORIGIN[message["origin"]]
        shown = {name for name in _RAW_PARTS if message[name] is not None}
        assert shown >= seen | {part}
        assert {name for name in _RAW_PARTS if message["as_of"][name] is not None} == shown
        seen = shown
        if part == "balances":
            for coin, balance in message[part].items():
                assert set(balance) == {"coin", "wallet_balance", "available_balance"}
                assert balance["coin"] == coin
                available.add(balance["available_balance"])
        if message["origin"] == "websocket:wallet":
            assert (in_ms(message["timestamp"]), message["margin"]["total_equity"]) in margins
        if part == "collateral_info":
            _check_collateral(message[part])
        if part == "loan_info":
            assert set(message[part]) == {"flexible", "fixed", "legacy"}
    assert available - {None}, "no available balance"
    assert {message["origin"] for message in raw} == set(_PARTS_BY_ORIGIN)
    assert debts == {row["totalDebt"] for rows in flexible.values() for row in rows}
    assert len(debts) == 4


def _check_collateral(found: dict[str, Any]) -> None:
    assert set(found) == {"ltv", "collateral_value", "borrowed_amount", "collateral_ratio", "free_collateral"}
    collateral, debt = Decimal(found["collateral_value"]), Decimal(found["borrowed_amount"])
    ratio = Decimal(found["collateral_ratio"])
    assert ratio == (collateral / debt).quantize(Decimal("0.0001"), ROUND_HALF_UP)
    assert ratio.as_tuple().exponent == -4
    assert Decimal(found["free_collateral"]) == collateral - debt
