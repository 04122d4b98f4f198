"""Setup and teardown of a scenario: exchange, reference client, topics with their own prefix, the stream's process."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.channels import channels_for
from hedgelock_ingest.protocol.frames import Category
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.kafka.read_topic import read_topic
from hedgelock_ingest_tests.processes.evidence import Evidence, Outage, Sent, StreamConnection, published
from hedgelock_ingest_tests.processes.proof import Proved, prove
from hedgelock_ingest_tests.processes.reference_client import Channel, ReferenceClient, connected_reference
from hedgelock_ingest_tests.processes.stream_process import StreamProcess
from hedgelock_ingest_tests.sandbox.exchange_fixtures import ExchangeProcess, exchange_process

SPOT_SYMBOLS = ("BTCUSDT",)
LINEAR_SYMBOLS = ("BTCUSDT", "ETHUSDT")
FEEDS = ("tickers", "publicTrade", "orderbook.50", "allLiquidation")


def now_ms() -> int:
    """Return the wall clock in milliseconds, which the exchange uses, too."""
    return int(time.time() * 1000)


async def eventually(what: str, condition: Callable[[], Awaitable[bool]], *, timeout_s: float = 20.0) -> None:
    """Wait until a condition holds; raise AssertionError with its name when it does not in time."""
    began_s = time.monotonic()
    while not await condition():
        if time.monotonic() - began_s > timeout_s:
            raise AssertionError(f"{what}: not within {timeout_s:g} s")
        await asyncio.sleep(0.05)


@dataclass
class Stage:
    """One scenario: `reference` and `stream` read `exchange`; `stream` writes to `kafka` under `prefix`."""

    kafka: EmbeddedKafka
    prefix: str
    exchange: ExchangeProcess
    reference: ReferenceClient
    stream: StreamProcess
    channels: Mapping[str, tuple[str, ...]]
    outages: list[Outage] = field(default_factory=list)

    @contextmanager
    def outage(self, *, is_frozen: bool = False) -> Iterator[None]:
        """Declare an outage for the block: connections may be cut and frames may be missing."""
        begin_ms = now_ms()
        yield
        self.outages.append(Outage(begin_ms, now_ms(), is_frozen))

    def another_stream(self, name: str, **settings: str) -> StreamProcess:
        """Prepare another process with its own journal and the same topics; the test ends it."""
        return StreamProcess(self.stream.folder / name, self.stream.settings | settings)

    def topic(self, topic: Topic) -> str:
        """Return a topic's name in Kafka."""
        return self.prefix + topic.value

    @property
    def feeds(self) -> list[str]:
        """All feeds, such as `linear:publicTrade.BTCUSDT`."""
        return [f"{category}:{name}" for category, names in self.channels.items() for name in names]

    async def gaps_recorded(self) -> None:
        """
        Wait until REST was asked for the trades of all gaps, since these gaps are recorded after that.

        A book's gap is recorded with its first snapshot, so there are as many of those.
        """

        async def recorded() -> bool:
            gaps = await read_topic(self.kafka.bootstrap_servers, self.topic(Topic.INGEST_GAPS))
            count = Counter((record.key or b"").decode() for record in gaps)
            books = [feed for feed in self.feeds if ":orderbook." in feed]
            return all(count[feed.replace("orderbook.50", "publicTrade")] >= count[feed] for feed in books)

        await eventually("a gap of trades for each gap of the book", recorded, timeout_s=30)

    async def all_received(self, *others: StreamProcess) -> None:
        """Pause the market, and wait until Kafka has acknowledged everything that was sent, and every gap."""
        await self.gaps_recorded()
        await self.exchange.fault("pause")
        streams, last = [self.stream, *others], -1
        while True:
            for stream in streams:
                await stream.caught_up()
            await self.gaps_recorded()  # gaps of frames that were read meanwhile
            received = sum([(await stream.stats())["frames_received"] for stream in streams])
            if received == last:
                return
            last = received
            await asyncio.sleep(0.2)

    async def connections(self) -> list[dict[str, Any]]:
        """Return the connections of the stream, open and closed, from the exchange's state."""
        state = await self.exchange.state()
        both = [*state["closed"], *state["open"]]
        return [one for one in both if one["conn_id"] not in self.reference.connection_ids]

    async def open_connections(self) -> int:
        """Count the stream's connections that are open and subscribed to all their channels."""
        return sum(
            one["closed_ms"] is None and len(one["channels"]) == len(self.channels[one["kind"]])
            for one in await self.connections()
        )

    async def evidence(self, *, dead_letters: int = 0, journals: int = 1) -> Evidence:
        """Collect what the exchange sent and what Kafka holds."""
        connections = await self.connections()
        records = {
            topic: published(topic, await read_topic(self.kafka.bootstrap_servers, self.topic(topic), timeout_s=60))
            for topic in Topic
        }
        return Evidence(
            frames=self.reference.frames(),
            sent={channel: await self._sent(channel, connections) for channel in self._all_channels()},
            records=records,
            outages=self.outages,
            dead_letters=dead_letters,
            journals=journals,
        )

    async def proved(self, *, dead_letters: int = 0, journals: int = 1) -> Proved:
        """Prove delivery of everything so far; the stream must have drained or caught up."""
        proved = prove(await self.evidence(dead_letters=dead_letters, journals=journals))
        print(proved)
        return proved

    def _all_channels(self) -> list[Channel]:
        return [(category, name) for category, names in self.channels.items() for name in names]

    async def _sent(self, channel: Channel, connections: list[dict[str, Any]]) -> list[Sent]:
        category, name = channel
        query = {"category": category, "channel": name}
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.exchange.rest_url}/sandbox/ledger", params=query) as answer,
        ):
            events = json.loads(await answer.read())["events"]
        sent = [Sent(number, sent_ms, identities, []) for number, sent_ms, identities, _ in events]
        first = sent[0].number if sent else 0
        for one in connections:
            connection = StreamConnection(one["conn_id"], one["opened_ms"], one["closed_ms"])
            for delivery in one["deliveries"]:
                if one["kind"] == category and delivery["channel"] == name:
                    for begin, end in delivery["runs"]:
                        for event in sent[begin - first : end - first]:
                            event.connections.append(connection)
        return sent


@asynccontextmanager
async def staged(
    kafka: EmbeddedKafka,
    prefix: str,
    folder: Path,
    *,
    rate: float = 1_000,
    scenario: Mapping[str, Any] | None = None,
    **settings: str,
) -> AsyncIterator[Stage]:
    """
    Set a scenario up; the stream is not started.

    Args:
        rate: Frames a second.
        scenario: Further fields of the exchange's `Scenario`.
        settings: Settings of the stream besides the addresses of this exchange and broker.
    """
    channels = {
        "spot": channels_for(Category.SPOT, SPOT_SYMBOLS, FEEDS),
        "linear": channels_for(Category.LINEAR, LINEAR_SYMBOLS, FEEDS),
    }
    fields = {"seed": 7, "rate": rate, "liquidations_per_s": 4.0, **(scenario or {})}
    async with (
        exchange_process(**fields) as exchange,
        connected_reference(exchange.public_ws_url, channels) as reference,
    ):
        stream = StreamProcess(
            folder,
            {
                "BYBIT_PUBLIC_WS_URL": exchange.public_ws_url,
                "BYBIT_REST_URL": exchange.rest_url,
                "BYBIT_SPOT_SYMBOLS": ",".join(SPOT_SYMBOLS),
                "BYBIT_LINEAR_SYMBOLS": ",".join(LINEAR_SYMBOLS),
                "BYBIT_LINES": "1",
                "BYBIT_STALE_AFTER": "60",
                "BYBIT_RECONNECT_INITIAL_DELAY": "0.05",
                "BYBIT_RECONNECT_MAX_DELAY": "0.5",
                "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
                **{topic.setting.upper(): prefix + topic.value for topic in Topic},
                **settings,
            },
        )
        stage = Stage(kafka, prefix, exchange, reference, stream, channels)
        try:
            yield stage
        finally:
            await stream.kill() if stream.starts else None
