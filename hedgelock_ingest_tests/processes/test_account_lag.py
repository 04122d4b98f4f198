"""Lists of REST that lag behind the private stream, on the real broker: no position and no balance is undone."""

from pathlib import Path
from typing import Any

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.processes.account import account_staged

OPENED = {"ETHUSDT": "0.2", "BTCUSD": "1000"}
"""One linear and one inverse position; what REST shows lags behind both."""


async def test_lists_that_lag_undo_no_position_and_no_balance(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """Three seconds behind and dated now, as a replica of Bybit answers right after a reconnect."""
    async with account_staged(kafka, topic_prefix, tmp_path) as stage:
        await stage.begun()
        await stage.exchange.fault("lag_rest", seconds=3, time="now")
        for symbol, size in OPENED.items():
            await stage.exchange.act("fill", symbol=symbol, side="Buy", qty=size)
        await stage.view_is_right("after the fills")
        await stage.exchange.fault("drop_lines", category="private")
        await stage.private_gaps_recorded(1)
        await stage.view_is_right("after lists that lag")
        changes = await stage.values(Topic.POSITION_CHANGES)
        gaps = await stage.gaps_by_feed()
        assert await stage.values(Topic.INGEST_DEAD_LETTERS) == []

    sizes: dict[str, list[Any]] = {}
    for change in changes:
        sizes.setdefault(change["symbol"], []).append(change["after"]["size"])
    assert {symbol: sizes[symbol] for symbol in OPENED} == {symbol: [size] for symbol, size in OPENED.items()}
    assert [gap["missing"] for gap in gaps["private:execution"]] == [None], "every category was requested"
