"""An hour in the past, made by shifting the simulated exchange's clock, and a backfill in a separate process."""

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from pydantic import SecretStr

from hedgelock_ingest.sandbox.exchange import SimulatedExchange
from hedgelock_ingest.settings import TOPIC_FIELDS, Settings

TRADES = "publicTrade.BTCUSDT"

_SETTINGS = (
    "bybit_api_key",
    "bybit_api_secret",
    "bybit_rest_url",
    "bybit_public_ws_url",
    "bybit_private_ws_url",
    "bybit_spot_symbols",
    "bybit_linear_symbols",
    "bybit_public_feeds",
    "kafka_bootstrap_servers",
    "journal_directory",
    *TOPIC_FIELDS,
)


def an_hour_ago() -> datetime:
    """Return the start of the last hour but one, which stays in the past however long a test takes."""
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)


@contextmanager
def clock_at(exchange: SimulatedExchange, at: datetime) -> Iterator[None]:
    """Set the exchange's clock to a time during the block."""
    exchange.shift_clock(at.timestamp() - time.time())
    try:
        yield
    finally:
        exchange.shift_clock(0)


def trade(exchange: SimulatedExchange, count: int, *, category: str = "linear") -> list[str]:
    """Publish so many frames of trades, and return the ids."""
    before = len(exchange.sent(category, TRADES, delivered=False))
    exchange.publish(category, TRADES, count)
    return [str(trade_id) for trade_id in exchange.sent(category, TRADES, delivered=False)[before:]]


def fill(exchange: SimulatedExchange, count: int) -> list[str]:
    """Fill an order of the account in so many parts, and return the execution ids."""
    return exchange.account.fill("BTCUSDT", "Buy", "0.01", fills=count)


def environment(settings: Settings) -> dict[str, str]:
    """Return settings as environment variables."""
    return {name.upper(): _text(getattr(settings, name)) for name in _SETTINGS if getattr(settings, name) is not None}


async def killed_amid_publishing(settings: Settings, begin: datetime) -> int:
    """Backfill in a process that kills itself when half is published and the rest in flight; return its exit code."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hedgelock_ingest_tests.backfill.dying_backfill", begin.isoformat()),
        env=os.environ | environment(settings),
    )
    return await asyncio.wait_for(process.wait(), 60)


def _text(value: object) -> str:
    match value:
        case SecretStr():
            return value.get_secret_value()
        case tuple():
            return ",".join(value)
    return str(value)
