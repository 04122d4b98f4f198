"""Published values: exact decimals, UTC times, and no fields outside the contract."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hedgelock_ingest.models.market import MarketData, Trade
from hedgelock_ingest.models.topics import CONTRACTS, Topic
from hedgelock_ingest.models.values import Published, iso_utc

TRACE_ID = "2f1d4c7a-9b3e-4f60-a1b2-c3d4e5f60718"


def a_value(**changes: object) -> dict[str, object]:
    """Build the fields of a trade."""
    return {
        "source": "websocket",
        "trace_id": TRACE_ID,
        "timestamp": "2024-05-15T04:52:42.463Z",
        "symbol": "BTCUSDT",
        "category": "spot",
        "trade_id": "2290000000090712222",
        "price": "43774.010",
        "size": "0.0026",
        "side": "Buy",
    } | changes


@given(number=st.decimals(allow_nan=False, allow_infinity=False))
def test_decimals_are_written_in_full(number: Decimal) -> None:
    """Decimals of any size are written without float rounding and without an exponent."""
    trade = Trade.model_validate(a_value(price=number))

    written = trade.model_dump(mode="json")["price"]

    assert "E" not in written.upper()
    assert Decimal(written) == number
    assert trade.price == number


def test_times_are_written_in_utc_with_milliseconds() -> None:
    """All times have one form, so that sorting by text sorts by time."""
    here = timezone(timedelta(hours=-5))

    assert iso_utc(datetime(2024, 5, 15, 4, 52, 42, 463_000, UTC)) == "2024-05-15T04:52:42.463Z"
    assert iso_utc(datetime(2024, 5, 15, 4, 52, 42, tzinfo=here)) == "2024-05-15T09:52:42.000Z"


@pytest.mark.parametrize(
    "changes", [{"surprise": 1}, {"side": "buy"}, {"category": "option"}, {"trace_id": "x"}, {"price": None}]
)
def test_values_outside_the_contract_are_refused(changes: dict[str, object]) -> None:
    """Validation finds every deviation."""
    with pytest.raises(ValidationError):
        Trade.model_validate(a_value(**changes))


def test_published_values_cannot_be_changed() -> None:
    """They are shared between tasks."""
    with pytest.raises(ValidationError):
        Trade.model_validate(a_value()).symbol = "ETHUSDT"  # type: ignore[misc]


@pytest.mark.parametrize("name", ["price", "volume_24h", "bid", "ask"])
def test_market_data_always_has_its_four_numbers_or_null(name: str) -> None:
    """A consumer finds each of them in every record; null states that Bybit has none."""
    ticker = {"source": "websocket", "trace_id": TRACE_ID, "timestamp": "2024-05-15T04:52:42Z", "symbol": "BTCUSDT"}
    ticker |= {"category": "linear", "price": "1", "volume_24h": "1", "bid": "1", "ask": "1"}

    assert getattr(MarketData.model_validate(ticker | {name: None}), name) is None
    del ticker[name]
    with pytest.raises(ValidationError):
        MarketData.model_validate(ticker)


def test_each_topic_has_exactly_one_contract() -> None:
    """Each topic has one message type, a contract and a setting, none of them shared."""
    assert set(CONTRACTS) == set(Topic)
    assert len({contract.message for contract in CONTRACTS.values()}) == len(CONTRACTS)
    assert all(issubclass(contract.message, Published) for contract in CONTRACTS.values())
    assert len({topic.setting for topic in Topic}) == len(Topic)
    assert Topic.MARKET_DATA.setting == "kafka_topic_market_data"
