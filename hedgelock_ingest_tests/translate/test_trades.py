"""Trades and liquidations: one record a row, each published once."""

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.translate.seen_ids import MIN_REMEMBERED
from hedgelock_ingest.translate.translator import Translator
from hedgelock_ingest_tests.builders import AT_MS, a_liquidation, a_trade
from hedgelock_ingest_tests.translate.translating import Running, values


def test_each_row_becomes_a_record_in_bybits_order() -> None:
    """A frame holds up to 1,024 trades, each with a time."""
    trades = values(Running().take(a_trade("t3", "t1", "t2", T=AT_MS - 7)), Topic.MARKET_TRADES)

    assert [trade["trade_id"] for trade in trades] == ["t3", "t1", "t2"]
    assert {trade["timestamp"] for trade in trades} == {"2024-05-15T04:52:41.993Z"}
    assert (trades[0]["side"], trades[0]["is_block_trade"], trades[0]["is_rpi_trade"]) == ("Buy", False, None)


def test_known_trades_are_left_out() -> None:
    """This also holds in a frame with new trades, and after a restart."""
    running = Running()
    running.take(a_trade("t1", "t2"))
    running.translator = Translator(running.translator.save())

    trades = values(running.take(a_trade("t2", "t3")), Topic.MARKET_TRADES)

    assert [trade["trade_id"] for trade in trades] == ["t3"]
    assert running.translator.counts["trades_known"] == 1


def test_same_id_in_another_channel_is_another_trade() -> None:
    """Spot numbers the trades of each symbol separately."""
    running = Running()
    records = running.take(a_trade("1"), a_trade("1", symbol="ETHUSDT"))
    records += running.take(a_trade("1"), line="spot-a")

    assert [record.key for record in records] == [b"linear:BTCUSDT", b"linear:ETHUSDT", b"spot:BTCUSDT"]


def test_as_many_trades_are_remembered_as_rest_can_return() -> None:
    """A gap fill requests up to 1,000 trades: none of them may be published twice."""
    running, count = Running(), MIN_REMEMBERED + 500
    running.take(*[a_trade(f"t{n}") for n in range(count)])

    assert running.take(a_trade(*[f"t{n}" for n in range(count - 1_000, count)])) == []
    assert len(running.take(a_trade("t0"))) == 1


def test_equal_liquidations_are_each_published_once() -> None:
    """They have no id: their count among equal rows distinguishes them."""
    running = Running()

    assert len(running.take(a_liquidation(rows=3))) == 3
    assert len(running.take(a_liquidation(rows=3), a_liquidation(rows=2))) == 0
    assert len(running.take(a_liquidation(rows=4))) == 1
    assert len(running.take(a_liquidation(p="0.04498"))) == 1
