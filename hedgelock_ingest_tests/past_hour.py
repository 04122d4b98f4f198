"""An hour that is over, brought about by shifting the simulated exchange's clock."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from hedgelock_ingest.sandbox.exchange import SimulatedExchange

TRADES = "publicTrade.BTCUSDT"


def an_hour_ago() -> datetime:
    """Return when the last hour but one began: over, however long a test takes."""
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)


def seconds_to(at: datetime) -> float:
    """Return how far ahead of the machine's clock a time is."""
    return at.timestamp() - time.time()


@contextmanager
def clock_at(exchange: SimulatedExchange, at: datetime) -> Iterator[None]:
    """Let it be another time at the exchange; afterwards the clock is right."""
    exchange.shift_clock(seconds_to(at))
    try:
        yield
    finally:
        exchange.shift_clock(0)


def trade(exchange: SimulatedExchange, count: int, *, category: str = "linear") -> list[str]:
    """Let so many frames of trades happen, and return the ids."""
    before = len(exchange.sent(category, TRADES, delivered=False))
    exchange.publish(category, TRADES, count)
    return [str(trade_id) for trade_id in exchange.sent(category, TRADES, delivered=False)[before:]]
