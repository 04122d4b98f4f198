"""Channels, and how they are spread over lines."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgelock_ingest.errors import TooManyChannels
from hedgelock_ingest.protocol.channels import (
    channels_for,
    feed_name,
    is_steady,
    plan_lines,
    split_over_connections,
    starts_with_snapshot,
)
from hedgelock_ingest.protocol.frames import Category

SPOT, LINEAR = Category.SPOT, Category.LINEAR
DEFAULT_FEEDS = ["tickers", "publicTrade", "orderbook.50", "allLiquidation"]


def test_feed_name_carries_the_category() -> None:
    """The channel alone is the same in spot and linear."""
    assert feed_name(LINEAR, "publicTrade.BTCUSDT") == "linear:publicTrade.BTCUSDT"


def test_linear_takes_all_feeds_symbol_by_symbol() -> None:
    """A symbol's feeds stay together, so that a split separates as few of them as possible."""
    assert channels_for(LINEAR, ["BTCUSDT", "ETHUSDT"], ["tickers", "allLiquidation"]) == (
        "tickers.BTCUSDT",
        "allLiquidation.BTCUSDT",
        "tickers.ETHUSDT",
        "allLiquidation.ETHUSDT",
    )


def test_spot_has_no_liquidations() -> None:
    """Bybit would refuse the subscription once a minute."""
    assert channels_for(SPOT, ["BTCUSDT"], DEFAULT_FEEDS) == (
        "tickers.BTCUSDT",
        "publicTrade.BTCUSDT",
        "orderbook.50.BTCUSDT",
    )


def test_spot_tickers_add_the_top_of_the_book() -> None:
    """Spot tickers carry no bid and ask, and no ticker is published without both."""
    assert channels_for(SPOT, ["BTCUSDT"], ["tickers"]) == ("tickers.BTCUSDT", "orderbook.1.BTCUSDT")
    assert channels_for(LINEAR, ["BTCUSDT"], ["tickers"]) == ("tickers.BTCUSDT",)


def test_channel_listed_twice_is_subscribed_once() -> None:
    """Bybit refuses a channel that is already subscribed."""
    assert channels_for(LINEAR, ["BTCUSDT", "BTCUSDT"], ["tickers", "tickers"]) == ("tickers.BTCUSDT",)


@pytest.mark.parametrize("feed", ["trades", "orderbook", "orderbook.500", "orderbook.50.BTCUSDT", ""])
def test_unknown_feed_is_refused(feed: str) -> None:
    """A misspelt feed must not start a program that receives nothing."""
    with pytest.raises(ValueError, match="found feeds"):
        channels_for(LINEAR, ["BTCUSDT"], [feed])


@pytest.mark.parametrize(
    ("channel", "steady"),
    [
        ("tickers.BTCUSDT", True),
        ("orderbook.50.BTCUSDT", True),
        ("publicTrade.BTCUSDT", False),
        ("allLiquidation.BTCUSDT", False),
    ],
)
def test_only_states_are_steady_and_start_with_a_snapshot(channel: str, steady: bool) -> None:
    """No trade for a minute means a quiet market; no ticker for a minute means a stale line."""
    assert is_steady(channel) is steady
    assert starts_with_snapshot(channel) is steady


@given(
    symbols=st.lists(st.text("ABCDEFG0123", min_size=1, max_size=20), unique=True, max_size=300),
    limit=st.integers(60, 2000),
)
def test_each_part_fits_and_nothing_is_lost(symbols: list[str], limit: int) -> None:
    """The limit applies to the arguments in JSON, however long the symbols are."""
    channels = channels_for(LINEAR, symbols, DEFAULT_FEEDS)

    parts = list(split_over_connections(channels, limit=limit))

    assert [channel for part in parts for channel in part] == list(channels)
    assert all(len(json.dumps(part, separators=(",", ":"))) <= limit for part in parts)


def test_channel_longer_than_a_connection_is_refused() -> None:
    """It cannot be split further."""
    with pytest.raises(TooManyChannels):
        list(split_over_connections(["tickers." + "B" * 30], limit=30))


def test_lines_are_named_by_copy_and_part() -> None:
    """Dashboards and gaps carry these names, and the category is parsed from them."""
    symbols = [f"SYMBOL{number:04}USDT" for number in range(1000)]
    channels = channels_for(LINEAR, symbols, ["tickers"])

    plans = plan_lines(LINEAR, channels, copies=2)

    assert [plan.name for plan in plans] == ["linear-a", "linear-a2", "linear-b", "linear-b2"]
    assert plans[0].channels == plans[2].channels
    assert plans[0].channels + plans[1].channels == channels


def test_one_copy_is_line_a_and_no_channels_give_no_line() -> None:
    """An empty list of symbols turns a category off."""
    assert [plan.name for plan in plan_lines(SPOT, ["tickers.BTCUSDT"], copies=1)] == ["spot-a"]
    assert plan_lines(SPOT, [], copies=2) == []
