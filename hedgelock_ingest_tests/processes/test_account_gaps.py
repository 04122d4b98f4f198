"""Gaps of the account: after cuts at every point of the handshake and kills, no execution is lost or doubled."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.processes.account import (
    HEALED,
    AccountStage,
    account_staged,
    check_chain,
    figures_of,
    in_ms,
    sent_positions,
)
from hedgelock_ingest_tests.processes.stage import eventually

KILLS = 3


@pytest.mark.proof
async def test_lines_cut_at_any_point_of_the_handshake_lose_no_execution(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """Wherever the line breaks, REST recovers the fills of the gap once, and one gap an interruption records that."""
    points = [
        _before_the_answer_to_auth,
        _between_auth_and_subscription,
        _amid_the_subscriptions,
        _between_subscription_and_acknowledgement,
        _while_rest_is_asked,
        _between_snapshot_and_frames,
    ]
    async with account_staged(kafka, topic_prefix, tmp_path, BYBIT_LINES="1") as stage:
        await stage.begun()
        began = await stage.exchange.account()
        count = 0
        for point in points:
            count += 2 if point is _while_rest_is_asked else 1  # the line is live in between
            await stage.exchange.act("fill", symbol="BTCUSDT", side="Sell", qty="0.004", fills=2)
            await point(stage)
            await stage.exchange.act("fill", symbol="BTCUSDT", side="Buy", qty="0.003", fills=3)
            await stage.private_gaps_recorded(count)
            await stage.view_is_right(point.__name__)
        await _check_account(stage, gap_count=count, known=len(began["executions"]), orders=len(began["orders"]))


@pytest.mark.proof
async def test_kills_amid_fills_lose_and_double_no_execution(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """Fills continue while no process runs: the next process requests them and doubles none that was published."""
    async with account_staged(kafka, topic_prefix, tmp_path) as stage:
        await stage.begun()
        began = await stage.exchange.account()
        hedging = asyncio.create_task(_hedge(stage))
        try:
            for count in range(1, KILLS + 1):
                await _executions_grow(stage)
                await stage.stream.kill()
                await _fills_happen(stage, 5)
                await stage.begun()
                await stage.private_gaps_recorded(count)
            await _executions_grow(stage)
        finally:
            hedging.cancel()
            await asyncio.wait([hedging])
        assert hedging.cancelled()
        await stage.view_is_right("after the last fill")
        await _check_account(stage, gap_count=KILLS, known=len(began["executions"]), orders=len(began["orders"]))


async def _check_account(stage: AccountStage, *, gap_count: int, known: int, orders: int) -> None:
    """Check that everything since the stream's start is in Kafka once, and that the gaps record what was recovered."""
    account = await stage.exchange.account()
    await stage.stream.stopped()
    executions = await stage.values(Topic.EXECUTIONS)
    sent = {row["execId"]: row for row in account["executions"]}
    found = [one["exec_id"] for one in executions]
    assert len(set(found)) == len(found)
    assert set(found) <= set(sent)
    assert set(list(sent)[known:]) <= set(found)
    for one in executions:
        row = sent[one["exec_id"]]
        assert (one["price"], one["size"], one["fee"]) == (row["execPrice"], row["execQty"], row["execFee"])
        assert one["source"] == ("rest-backfill" if one["healed"] else "websocket")
    assert any(one["healed"] for one in executions[known:])
    assert any(not one["healed"] for one in executions)

    last_by_order = {one["order_id"]: one for one in await stage.values(Topic.ORDER_UPDATES)}
    for row in account["orders"][orders:]:
        last = last_by_order[row["orderId"]]
        assert (last["status"], last["filled_quantity"]) == (row["orderStatus"], row["cumExecQty"])

    changes = await stage.values(Topic.POSITION_CHANGES)
    positions = sent_positions(account)
    assert check_chain(changes) > gap_count
    for change in changes:
        after = change["after"]
        name = after["symbol"], in_ms(after["updated_at"]), after["sequence"]
        assert figures_of(after) in positions[name]

    for feed, gaps in (await stage.gaps_by_feed()).items():
        assert [(gap["healed"], gap["healed_by"]) for gap in gaps] == [HEALED[feed]] * gap_count, feed
    assert await stage.values(Topic.INGEST_DEAD_LETTERS) == []


async def _before_the_answer_to_auth(stage: AccountStage) -> None:
    await stage.exchange.fault("delay_acks", seconds=5)
    await stage.exchange.fault("drop_lines", category="private")
    await _a_private_line(stage, lambda line: line["channels"] == [])
    await _fill(stage)
    await stage.exchange.fault("drop_lines", category="private")
    await stage.exchange.fault("delay_acks", seconds=0)


async def _between_auth_and_subscription(stage: AccountStage) -> None:
    await stage.exchange.fault("drop_after_auth", count=3)
    await stage.exchange.fault("drop_lines", category="private")
    await _fill(stage)


async def _amid_the_subscriptions(stage: AccountStage) -> None:
    await _cut_when(stage, lambda line: line["channels"] != [])


async def _between_subscription_and_acknowledgement(stage: AccountStage) -> None:
    await _cut_when(stage, lambda line: len(line["channels"]) == 4)


async def _while_rest_is_asked(stage: AccountStage) -> None:
    await stage.exchange.fault("fail_rest", kind="silence", seconds=2, count=None)
    await stage.exchange.fault("drop_lines", category="private")
    await _fill(stage)
    await _a_private_line(stage, lambda line: len(line["channels"]) == 4)
    for _ in range(5):
        await _fill(stage)
        await asyncio.sleep(0.1)
    await stage.exchange.fault("drop_lines", category="private")
    await stage.exchange.fault("restore_rest")
    await _fill(stage)


async def _between_snapshot_and_frames(stage: AccountStage) -> None:
    """Fill while the answers about fills are under way, so that REST and frames have the same fills."""
    for path in ("/v5/order", "/v5/execution"):
        await stage.exchange.fault("fail_rest", kind="silence", path=path, seconds=0.7, count=2)
    await stage.exchange.fault("drop_lines", category="private")
    await _fill(stage)
    asked = len(await _wallet_answers(stage))

    async def answered() -> bool:
        return len(await _wallet_answers(stage)) > asked

    await eventually("an answer about the wallet", answered)
    for _ in range(5):
        await _fill(stage)
        await asyncio.sleep(0.1)


async def _cut_when(stage: AccountStage, is_there: Callable[[dict[str, Any]], bool]) -> None:
    """Cut a line that has sent subscriptions and has not received their acknowledgement."""
    await stage.exchange.fault("delay_acks", seconds=0.4)
    await stage.exchange.fault("drop_lines", category="private")
    await _fill(stage)
    await _a_private_line(stage, is_there)
    await stage.exchange.fault("drop_lines", category="private")
    await _fill(stage)
    await stage.exchange.fault("delay_acks", seconds=0)


async def _a_private_line(stage: AccountStage, is_there: Callable[[dict[str, Any]], bool]) -> None:
    async def there() -> bool:
        return any(map(is_there, await stage.private_lines()))

    await eventually("a new private line", there)


async def _wallet_answers(stage: AccountStage) -> list[dict[str, Any]]:
    answers = (await stage.exchange.account())["answers"]
    return [answer for answer in answers if answer["path"] == "/v5/account/wallet-balance"]


async def _fill(stage: AccountStage) -> None:
    await stage.exchange.act("fill", symbol="BTCUSDT", side="Sell", qty="0.002", fills=2)


async def _hedge(stage: AccountStage) -> None:
    """Buy and sell until cancelled, half of it by orders that stay open for a while."""
    while True:
        resting = await stage.exchange.act("place_order", symbol="BTCUSDT", side="Sell", qty="0.004", price="200000")
        await stage.exchange.act("fill", symbol="BTCUSDT", side="Buy", qty="0.003", fills=3)
        await stage.exchange.act("fill_order", order_id=resting, qty="0.001")
        await asyncio.sleep(0.1)
        await stage.exchange.act("fill_order", order_id=resting, fills=2)


async def _executions_grow(stage: AccountStage) -> None:
    count = (await stage.stream.stats())["records"].get("executions", 0)
    await stage.stream.until_stats("more fills", lambda found: found["records"].get("executions", 0) > count + 12)


async def _fills_happen(stage: AccountStage, count: int) -> None:
    before = len((await stage.exchange.account())["executions"])
    await eventually("fills that no line receives", _more_than(stage, before + count))


def _more_than(stage: AccountStage, count: int) -> Callable[[], Awaitable[bool]]:
    async def more() -> bool:
        return len((await stage.exchange.account())["executions"]) > count

    return more
