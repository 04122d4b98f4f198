"""Lineage: Bybit's feeds and our Kafka topics as assets, and the feeds that each topic is made from."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

import dagster as dg

from hedgelock_ingest.defs.known_settings import KnownSettings
from hedgelock_ingest.defs.topics.columns import FIELDS, column_schema, page
from hedgelock_ingest.models.schemas import json_schemas
from hedgelock_ingest.models.topics import CONTRACTS, STEADY, Topic

OWNERS = ("team:hedgelock",)
LOCATION = "hedgelock_ingest"
"""The location name in workspace.yaml; links between pages need it."""

IDLE_REPORT_EVERY_S = 300.0
"""Interval of reports on a topic that may be idle, while it gets no records."""

_DAY_MS = 86_400_000
_FRESHNESS = dg.FreshnessPolicy.time_window(fail_window=timedelta(minutes=5), warn_window=timedelta(minutes=3))
_IDLE_FRESHNESS = dg.FreshnessPolicy.time_window(
    fail_window=timedelta(seconds=3 * IDLE_REPORT_EVERY_S), warn_window=timedelta(seconds=2 * IDLE_REPORT_EVERY_S)
)

_PRIVATE = {
    "wallet": "coins of the unified account, at each change",
    "position": "positions of linear contracts, at each change",
    "order": "orders and their changes of status",
    "execution": "fills",
}
_REST = {
    "collateral": "collateral, debt and LTV of the crypto loan",
    "loans": "loans and their interest",
    "wallet": "coins of the unified account, polled",
}
_CARRIED = (
    "Never materialized is expected: the feed is Bybit's. Job `stream` carries it; the topics below show its figures."
)
_POLLED = "Never materialized is expected: the data is Bybit's. Job `poll_account` polls it; the polls below show it."
_STEADY_STATUS = (
    "**Status:** the check `data_flows` shows a change within seconds. The topic is written all the time: a minute "
    "without a record has no event, and without events the freshness policy fails."
)
_IDLE_STATUS = (
    "**Status:** the topic may be idle; it is then reported every five minutes, with 0 records. The freshness policy "
    "passes while there are events, with or without records."
)
_FINDINGS_STATUS = "**Status:** ideally without records: each record reports missing data. `audit` checks them."
_HOW_TO_READ = (
    "Every minute job `stream` reports its figures: below under Metadata, as Plots, and in words under Events. "
    "**Latency:** `lag frames` (received, not yet in Kafka), `latency p99 ms` (from read to acknowledged). "
    "**Losses:** `gaps`, `dead letters` of all feeds since the run began; asset `audit` verifies the topics. "
    "**Operation:** see the job `stream`."
)
_BYBIT_DOCS = "https://bybit-exchange.github.io/docs/v5"
_PAGES = {
    **{("private", name): f"websocket/private/{name}" for name in _PRIVATE},
    ("rest", "collateral"): "new-crypto-loan/crypto-loan-position",
    ("rest", "loans"): "new-crypto-loan/flexible/unpaid-loan-order",
    ("rest", "wallet"): "account/wallet-balance",
}
_GROUP_BY_TOPIC = {
    Topic.INGEST_GAPS: "kafka_findings",
    Topic.INGEST_DEAD_LETTERS: "kafka_findings",
}
_PRIVATE_BY_TOPIC = {
    Topic.ACCOUNT_UPDATES: ("wallet", "position"),
    Topic.POSITION_CHANGES: ("position",),
    Topic.ORDER_UPDATES: ("order",),
    Topic.EXECUTIONS: ("execution",),
    Topic.ACCOUNT_RAW: ("wallet", "position"),
}
_TOPIC_BY_FEED = {
    "tickers": Topic.MARKET_DATA,
    "publicTrade": Topic.MARKET_TRADES,
    "orderbook": Topic.MARKET_ORDER_BOOKS,
    "allLiquidation": Topic.MARKET_LIQUIDATIONS,
}


BACKFILLED = dg.AssetKey(["backfilled_hours"])
BACKFILLED_TOPICS = (Topic.MARKET_TRADES, Topic.EXECUTIONS)


def topic_key(topic: Topic) -> dg.AssetKey:
    """Return the key of a topic's asset: `kafka / market-data`."""
    return dg.AssetKey(["kafka", topic.value])


def feed_key(category: str, feed: str) -> dg.AssetKey:
    """Return the key of a feed's asset: `bybit / linear / orderbook_50`."""
    return dg.AssetKey(["bybit", category, feed.replace(".", "_")])


def polled_key(part: str) -> dg.AssetKey:
    """Return the key of the asset that a scheduled poll materialises: `loans`."""
    return dg.AssetKey([str(part)])  # Dagster cannot serialise an enum


def public_feeds(known: KnownSettings) -> dict[tuple[str, str], list[str]]:
    """Return all shards' feeds with their symbols, by category and feed."""
    found: dict[tuple[str, str], list[str]] = {}
    for name in known.shards:
        for category, channel in known.settings.shard(name).public_channels():
            feed, _, symbol = channel.rpartition(".")
            found.setdefault((category, feed), []).append(symbol)
    return found


def keys_expected(known: KnownSettings, topic: Topic) -> set[str]:
    """Return the keys of a market topic's records, such as `linear:BTCUSDT`, that the settings configure."""
    return {
        f"{category}:{symbol}"
        for (category, feed), symbols in public_feeds(known).items()
        if _TOPIC_BY_FEED.get(feed.partition(".")[0]) is topic
        for symbol in symbols
    }


def assets(known: KnownSettings) -> list[dg.AssetSpec]:
    """Describe all feeds and topics."""
    public = public_feeds(known)
    feeds = [_public_feed(category, feed, symbols) for (category, feed), symbols in public.items()]
    feeds += [_account_feed("private", name, about) for name, about in _PRIVATE.items()]
    feeds += [_account_feed("rest", name, about) for name, about in _REST.items()]
    return [*feeds, *(_topic(known, topic, _sources(topic, public)) for topic in Topic)]


def backfill_sources(known: KnownSettings) -> list[dg.AssetKey]:
    """Return the keys of the feeds whose past hours REST can return."""
    trades = [feed_key(category, feed) for category, feed in public_feeds(known) if feed == "publicTrade"]
    return [*trades, feed_key("private", "execution")]


def topics_of(feeds: Iterable[str], *, has_private: bool) -> list[Topic]:
    """Return the topics that a shard with these feeds writes; a feed is such as `linear:orderbook.50.BTCUSDT`."""
    written = {topic for feed in feeds for name, topic in _TOPIC_BY_FEED.items() if f":{name}." in feed}
    written |= {Topic.INGEST_GAPS, Topic.INGEST_DEAD_LETTERS}
    return [topic for topic in Topic if topic in written or (has_private and topic in _PRIVATE_BY_TOPIC)]


def _public_feed(category: str, feed: str, symbols: Sequence[str]) -> dg.AssetSpec:
    return dg.AssetSpec(
        feed_key(category, feed),
        description=f"Bybit v5 WebSocket, {category}: `{feed}` of {', '.join(symbols)}.\n\n{_CARRIED}",
        group_name="bybit_public",
        owners=OWNERS,
        kinds={"bybit", "websocket"},
        metadata={
            "symbols": ", ".join(symbols),
            "carried by": dg.MetadataValue.job("stream", LOCATION),
            "Bybit": dg.MetadataValue.url(_bybit_page(feed)),
        },
    )


def _account_feed(way: str, name: str, about: str) -> dg.AssetSpec:
    is_private = way == "private"
    kind, job, note = ("websocket", "stream", _CARRIED) if is_private else ("rest", "poll_account", _POLLED)
    return dg.AssetSpec(
        feed_key(way, name),
        description=f"Bybit v5, {kind}, with a read-only key: {about}.\n\n{note}",
        group_name=f"bybit_{way}",
        owners=OWNERS,
        kinds={"bybit", kind},
        metadata={
            "carried by": dg.MetadataValue.job(job, LOCATION),
            "Bybit": dg.MetadataValue.url(f"{_BYBIT_DOCS}/{_PAGES[way, name]}"),
        },
    )


def _topic(known: KnownSettings, topic: Topic, sources: Sequence[dg.AssetKey]) -> dg.AssetSpec:
    contract = CONTRACTS[topic]
    about = inspect.getdoc(contract.message)
    market = "kafka_market" if topic.value.startswith("market-") else "kafka_account"
    is_public = topic not in _PRIVATE_BY_TOPIC
    return dg.AssetSpec(
        topic_key(topic),
        deps=sources,
        description=f"{_how_to_read(topic)}\n\n{about}\n\nFields and headers are below, under Metadata: `{FIELDS}`.",
        group_name=_GROUP_BY_TOPIC.get(topic, market),
        owners=OWNERS,
        kinds={"kafka"},
        freshness_policy=_freshness(topic) if is_public or known.settings.has_key else None,
        metadata={
            "dagster/column_schema": column_schema(contract.message),
            "written by": dg.MetadataValue.job("stream", LOCATION),
            "topic in Kafka": known.settings.topic(topic.value),
            "key": contract.key,
            "cleanup": contract.cleanup,
            "kept for days": contract.retention_ms / _DAY_MS,
            "message": contract.message.__name__,
            FIELDS: page(topic),
            "JSON schema": dg.MetadataValue.json(json_schemas()[topic.value]),
        },
    )


def _freshness(topic: Topic) -> dg.FreshnessPolicy:
    return _FRESHNESS if topic in STEADY else _IDLE_FRESHNESS


def _how_to_read(topic: Topic) -> str:
    if topic in (Topic.INGEST_GAPS, Topic.INGEST_DEAD_LETTERS):
        return f"{_FINDINGS_STATUS} {_HOW_TO_READ}"
    return f"{_STEADY_STATUS if topic in STEADY else _IDLE_STATUS} {_HOW_TO_READ}"


def _sources(topic: Topic, public: Mapping[tuple[str, str], Sequence[str]]) -> list[dg.AssetKey]:
    every_feed = [feed_key(category, feed) for category, feed in public]
    every_feed += [feed_key("private", name) for name in _PRIVATE]
    if topic is Topic.INGEST_GAPS:
        return every_feed
    if topic is Topic.INGEST_DEAD_LETTERS:
        return [*every_feed, *(feed_key("rest", name) for name in _REST)]
    sources = [
        feed_key(category, feed) for category, feed in public if _TOPIC_BY_FEED.get(feed.partition(".")[0]) is topic
    ]
    if topic is Topic.MARKET_DATA:  # spot tickers carry no bid and ask: these come from the book
        sources += [feed_key(category, feed) for category, feed in public if category == "spot" and "orderbook" in feed]
    sources += [feed_key("private", name) for name in _PRIVATE_BY_TOPIC.get(topic, ())]
    if topic is Topic.ACCOUNT_RAW:
        sources += [polled_key(name) for name in _REST]
    if topic in BACKFILLED_TOPICS:
        sources.append(BACKFILLED)
    if topic is Topic.ACCOUNT_UPDATES:
        sources.append(topic_key(Topic.ACCOUNT_RAW))
    return sources


def _bybit_page(feed: str) -> str:
    page = {"tickers": "ticker", "publicTrade": "trade", "orderbook": "orderbook", "allLiquidation": "all-liquidation"}
    return f"{_BYBIT_DOCS}/websocket/public/{page[feed.partition('.')[0]]}"
