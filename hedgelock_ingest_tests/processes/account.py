"""Setup of scenarios with an account: the exchange keeps the ledger that the records in Kafka are compared with."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.exchange.keys import KEYS
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.kafka.read_topic import read_topic
from hedgelock_ingest_tests.processes.evidence import PublishedRecord, published
from hedgelock_ingest_tests.processes.stage import eventually
from hedgelock_ingest_tests.processes.stream_process import StreamProcess
from hedgelock_ingest_tests.sandbox.exchange_fixtures import ExchangeProcess, exchange_process

PRIVATE_FEEDS = ("private:wallet", "private:position", "private:order", "private:execution")
HEALED = {
    "private:wallet": ("partly", "snapshot"),
    "private:position": ("partly", "snapshot"),
    "private:order": ("partly", "rest"),
    "private:execution": ("yes", "rest"),
}
"""`healed` and `healed_by` of each private feed's gap while REST answers: of states REST has only the last."""

_FIGURE_NAMES = {
    "size": "size",
    "position_value": "positionValue",
    "mark_price": "markPrice",
    "unrealised_pnl": "unrealisedPnl",
    "current_realised_pnl": "curRealisedPnl",
    "cumulative_realised_pnl": "cumRealisedPnl",
    "break_even_price": "breakEvenPrice",
    "leverage": "leverage",
}


@dataclass
class AccountStage:
    """`exchange` holds the account, `stream` reads it and writes to `kafka` under `prefix`."""

    kafka: EmbeddedKafka
    prefix: str
    exchange: ExchangeProcess
    stream: StreamProcess

    async def records(self, topic: Topic) -> list[PublishedRecord]:
        """Return what a topic holds, partition by partition."""
        return published(topic, await read_topic(self.kafka.bootstrap_servers, self.prefix + topic.value))

    async def values(self, topic: Topic) -> list[dict[str, Any]]:
        """Return the values of a topic's records."""
        return [record.value for record in await self.records(topic)]

    async def begun(self) -> None:
        """Start the stream and wait until the merged view of the account exists."""
        self.stream.start()
        await self.viewed()

    async def viewed(self) -> None:
        """Wait until frames flow and every part of the account was received."""
        await self.stream.ready(timeout_s=60)
        await self.stream.until_stats("complete account", lambda found: found["account"]["missing_parts"] == [])

    async def view_is_right(self, what: str) -> dict[str, Any]:
        """Wait until the newest merged view equals the ledger, digit for digit; return it."""
        update: dict[str, Any] = {}

        async def equal() -> bool:
            nonlocal update
            updates = await self.values(Topic.ACCOUNT_UPDATES)
            update = updates[-1]
            return view_of_update(update) == view_of_books((await self.exchange.account())["books"])

        try:
            await eventually(what, equal)
        except AssertionError as error:
            books = (await self.exchange.account())["books"]
            raise AssertionError(f"{error}\n{view_of_update(update)}\n{view_of_books(books)}") from None
        return update

    async def gaps_by_feed(self) -> dict[str, list[dict[str, Any]]]:
        """Return the gaps of the private feeds, in order."""
        found: dict[str, list[dict[str, Any]]] = {feed: [] for feed in PRIVATE_FEEDS}
        for gap in await self.values(Topic.INGEST_GAPS):
            found.get(gap["feed"], []).append(gap)
        return found

    async def private_gaps_recorded(self, count: int) -> None:
        """Wait until each private feed has that many gaps."""

        async def closed() -> bool:
            return all(len(gaps) >= count for gaps in (await self.gaps_by_feed()).values())

        await eventually(f"{count} gaps of each private feed", closed)

    async def private_lines(self) -> list[dict[str, Any]]:
        """Return the open private lines from the exchange's state."""
        return [line for line in (await self.exchange.state())["open"] if line["kind"] == "private"]

    async def text(self, page: str) -> str:
        """Return the text of a page of the stream."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.stream.port}/{page}") as answer,
        ):
            return await answer.text()

    async def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of `hedgelock-ingest` with the stream's settings."""
        return await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "hedgelock_ingest", *arguments],
            env=self.stream.environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@asynccontextmanager
async def account_staged(
    kafka: EmbeddedKafka,
    prefix: str,
    folder: Path,
    *,
    key: str | None = "read-only",
    scenario: Mapping[str, Any] | None = None,
    **settings: str,
) -> AsyncIterator[AccountStage]:
    """
    Set a scenario up; the stream is not started. The market does not move unless a test moves it.

    Args:
        key: One of the simulated account's keys.
        scenario: Further fields of the exchange's `Scenario`.
        settings: Settings of the stream besides the addresses of this exchange and broker.
    """
    async with exchange_process(**{"seed": 7, "rate": 0, **(scenario or {})}) as exchange:
        secrets = {} if key is None else {"BYBIT_API_KEY": KEYS[key].api_key, "BYBIT_API_SECRET": KEYS[key].api_secret}
        stream = StreamProcess(
            folder,
            {
                "BYBIT_PUBLIC_WS_URL": exchange.public_ws_url,
                "BYBIT_PRIVATE_WS_URL": exchange.private_ws_url,
                "BYBIT_REST_URL": exchange.rest_url,
                "BYBIT_SPOT_SYMBOLS": "",
                "BYBIT_LINEAR_SYMBOLS": "BTCUSDT",
                "BYBIT_PUBLIC_FEEDS": "publicTrade",
                "BYBIT_STALE_AFTER": "60",
                "BYBIT_RECONNECT_INITIAL_DELAY": "0.05",
                "BYBIT_RECONNECT_MAX_DELAY": "0.2",
                "BYBIT_COLLATERAL_POLL_INTERVAL": "0.5",
                "BYBIT_LOAN_POLL_INTERVAL": "0.5",
                "BYBIT_REST_REQUESTS_PER_SECOND": "50",
                "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
                **{topic.setting.upper(): prefix + topic.value for topic in Topic},
                **secrets,
                **settings,
            },
        )
        try:
            yield AccountStage(kafka, prefix, exchange, stream)
        finally:
            await stream.kill() if stream.starts else None


def view_of_update(update: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a merged view that the exchange's books have, too."""
    return {
        "balances": update["balances"],
        "loan": (update["loan_amount"], update["collateral_value"], update["ltv"]),
        "positions": {
            one["symbol"]: (("-" if one["side"] == "Sell" else "") + one["size"], one["entry_price"])
            for one in update["positions"]
        },
    }


def view_of_books(books: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of the exchange's books that a merged view has, too."""
    loans = books["loans"]
    return {
        "balances": books["balances"],
        "loan": (loans["totalDebt"], loans["totalCollateral"], loans["ltv"]),
        "positions": {
            symbol: (one["size"], one["entry"]) for symbol, one in books["positions"].items() if one["size"] != "0"
        },
    }


def figures_of(position: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the figures of a published position under Bybit's names."""
    found = {theirs: position[ours] for ours, theirs in _FIGURE_NAMES.items()}
    return {**found, "entryPrice": position["entry_price"]}


def sent_positions(account: Mapping[str, Any]) -> dict[tuple[str, int, int], list[dict[str, str | None]]]:
    """Collect the figures in the exchange's frames and answers, by symbol, `updatedTime` and `seq`."""
    rows = [row for frame in account["frames"] if frame["topic"] == "position" for row in frame["data"]]
    rows += [row for one in account["answers"] if one["path"] == "/v5/position/list" for row in one["result"]["list"]]
    sent: dict[tuple[str, int, int], list[dict[str, str | None]]] = {}
    for row in rows:
        figures = {name: row[name] or None for name in _FIGURE_NAMES.values()}
        figures["entryPrice"] = row.get("entryPrice") or row.get("avgPrice")
        sent.setdefault((row["symbol"], int(row["updatedTime"]), row["seq"]), []).append(figures)
    return sent


def check_chain(changes: Iterable[Mapping[str, Any]]) -> int:
    """Check that each change of a position begins where the last one ended; return the number of changes."""
    by_symbol: dict[str, list[Mapping[str, Any]]] = {}
    for change in changes:
        by_symbol.setdefault(change["symbol"], []).append(change)
    for of_symbol in by_symbol.values():
        for earlier, later in pairwise(of_symbol):
            assert later["before"] == earlier["after"]
    return sum(map(len, by_symbol.values()))


def steps[T](values: Sequence[T]) -> list[T]:
    """Drop each value that equals the one before it."""
    return [value for index, value in enumerate(values) if index == 0 or value != values[index - 1]]


def in_ms(text: str) -> int:
    """Convert a published time to milliseconds."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)
