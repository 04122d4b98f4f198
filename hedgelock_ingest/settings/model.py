"""
Declarations of every setting of the service.

`Settings` is flat: each field is the environment's name in lower case. The constructor takes its arguments alone;
`load_settings` reads the environment and the YAML file, and reports all errors at once. `docs/settings.md` lists all
settings; a test keeps the page equal to this class.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    JsonValue,
    PrivateAttr,
    SecretStr,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from hedgelock_ingest.errors import SettingsInvalid
from hedgelock_ingest.models.topics import CONTRACTS, Topic
from hedgelock_ingest.settings.validators import (
    account_id,
    api_key,
    bootstrap_servers,
    existing_file,
    feed,
    http_url,
    integer,
    route,
    shard_name,
    split_list,
    split_routes,
    symbol,
    topic_name,
    upper,
    webhook_url,
    websocket_url,
)

__all__ = ["Origin", "Settings", "Shard", "ShardContents", "origins", "secrets"]


def _setting(default: object, allowed: str, about: str, **constraints: Any) -> Any:
    """Declare a setting with the texts that help pages and error messages use for it."""
    extra: dict[str, JsonValue] = {"allowed": allowed}
    return Field(default=default, description=about, json_schema_extra=extra, **constraints)


def _number(default: float, low: float, high: float, about: str) -> Any:
    allowed = f"a number from {low:g} to {high:g}"
    return _setting(default, allowed, about, ge=low, le=high, allow_inf_nan=False)


def _count(default: int, low: int, high: int, about: str) -> Any:
    return _setting(default, f"a whole number from {low} to {high}", about, ge=low, le=high)


def _broker_default(low: int, high: int, about: str) -> Any:
    allowed, default = f"a whole number from {low} to {high}", "the broker's"
    extra: dict[str, JsonValue] = {"allowed": allowed, "default": default}
    return Field(default=None, description=about, json_schema_extra=extra, ge=low, le=high)


def _url(mainnet: str, testnet: str, allowed: str, about: str) -> Any:
    def default(values: dict[str, Any]) -> str:
        return testnet if values["bybit_testnet"] else mainnet

    extra: dict[str, JsonValue] = {"allowed": allowed, "default": "Bybit's, by `BYBIT_TESTNET`"}
    return Field(default_factory=default, description=about, json_schema_extra=extra)


def _topic(name: str) -> Any:
    return _setting(name, "1 to 249 of A-Z a-z 0-9 . _ -", f"the Kafka name of the topic `{name}`")


_YES_OR_NO = "true or false"
_SYMBOLS = "symbols in upper case, separated by commas, such as BTCUSDT,ETHUSDT"
_FEEDS = "tickers, publicTrade, orderbook.1, orderbook.50, orderbook.200, orderbook.1000, allLiquidation"
_NOT_EMPTY = "text without spaces"

type TopicText = Annotated[str, AfterValidator(topic_name)]
type Symbols = Annotated[tuple[Annotated[str, AfterValidator(symbol)], ...], BeforeValidator(split_list)]
type Feeds = Annotated[tuple[Annotated[str, AfterValidator(feed)], ...], BeforeValidator(split_list)]
type Routes = Annotated[tuple[Annotated[str, AfterValidator(route)], ...], BeforeValidator(split_routes)]
type ShardNames = Annotated[
    tuple[Annotated[str, AfterValidator(shard_name)], ...], BeforeValidator(split_list), Field(min_length=1)
]
type ExistingFile = Annotated[Path, AfterValidator(existing_file)]


class ShardContents(BaseModel):
    """Contents of one shard that differ from the settings of the same name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bybit_spot_symbols: Symbols | None = None
    bybit_linear_symbols: Symbols | None = None
    bybit_public_feeds: Feeds | None = None
    private_feeds: bool | None = None


@dataclass(frozen=True, slots=True)
class Shard:
    """One part of the stream: its symbols and feeds, the folder of its journal, the port of its web pages."""

    name: str
    spot_symbols: tuple[str, ...]
    linear_symbols: tuple[str, ...]
    public_feeds: tuple[str, ...]
    carries_private_feeds: bool
    journal_directory: Path
    monitoring_port: int

    def public_feeds_of(self, category: str) -> tuple[str, ...]:
        """Return the feeds Bybit offers in a category: spot has no liquidations."""
        return tuple(name for name in self.public_feeds if category != "spot" or name != "allLiquidation")

    def public_channels(self) -> Iterator[tuple[str, str]]:
        """Yield each configured channel as (category, channel), such as `("spot", "tickers.BTCUSDT")`."""
        for category, symbols in (("spot", self.spot_symbols), ("linear", self.linear_symbols)):
            for name in self.public_feeds_of(category):
                yield from ((category, f"{name}.{each}") for each in symbols)


class Settings(BaseSettings):
    """All settings, validated one by one; `load_settings` also checks for conflicts between them."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    bybit_api_key: Annotated[SecretStr, AfterValidator(api_key)] | None = _setting(
        None, _NOT_EMPTY, "a read-only API key; without one only public feeds run"
    )
    bybit_api_secret: SecretStr | None = _setting(None, _NOT_EMPTY, "the secret of `BYBIT_API_KEY`")
    bybit_allow_trading_key: bool = _setting(
        False, _YES_OR_NO, "accept a key that may trade; by default only a read-only key is accepted"
    )
    bybit_testnet: bool = _setting(True, _YES_OR_NO, "use Bybit's testnet rather than the real exchange")
    bybit_account_id: Annotated[str, AfterValidator(account_id)] = _setting(
        "default_account",
        "1 to 128 characters without spaces and colons",
        "the account's name in every record and key",
    )
    bybit_public_ws_url: Annotated[str, AfterValidator(websocket_url)] = _url(
        "wss://stream.bybit.com/v5/public",
        "wss://stream-testnet.bybit.com/v5/public",
        "a ws:// or wss:// address; the category is appended",
        "address of public lines",
    )
    bybit_private_ws_url: Annotated[str, AfterValidator(websocket_url)] = _url(
        "wss://stream.bybit.com/v5/private",
        "wss://stream-testnet.bybit.com/v5/private",
        "a ws:// or wss:// address",
        "address of private lines",
    )
    bybit_rest_url: Annotated[str, AfterValidator(http_url)] = _url(
        "https://api.bybit.com",
        "https://api-testnet.bybit.com",
        "an http:// or https:// address without a path",
        "address of REST requests",
    )
    bybit_spot_symbols: Symbols = _setting(("BTCUSDT",), _SYMBOLS, "spot symbols; empty turns spot off")
    bybit_linear_symbols: Symbols = _setting(
        ("BTCUSDT",), _SYMBOLS, "linear perpetuals and futures; empty turns linear off"
    )
    bybit_public_feeds: Feeds = _setting(
        ("tickers", "publicTrade", "orderbook.50", "allLiquidation"),
        f"any of {_FEEDS}, separated by commas",
        "public feeds of every symbol; spot has no liquidations",
    )
    bybit_lines: Annotated[Literal[1, 2], BeforeValidator(integer)] = _setting(
        2, "1 or 2", "lines per feed; with two, one may fail without a gap"
    )
    bybit_websocket_client: Literal["websockets", "pybit"] = _setting(
        "websockets", "websockets or pybit", "WebSocket library of the lines"
    )
    bybit_polls: bool = _setting(
        True, _YES_OR_NO, "`run` polls collateral, loans and wallet itself; false if scheduled assets poll them"
    )
    bybit_collateral_poll_interval: float = _number(5, 0.2, 60, "seconds between two polls of the collateral")
    bybit_loan_poll_interval: float = _number(5, 0.2, 60, "seconds between two polls of the loans")
    bybit_reconnect_initial_delay: float = _number(
        0.5, 0.01, 60, "approximate seconds before the first reconnect; doubled at each attempt, with jitter"
    )
    bybit_reconnect_max_delay: float = _number(30, 0.01, 600, "longest delay between two connection attempts, seconds")
    bybit_ping_interval: float = _number(
        20, 0.5, 60, "seconds between two pings on a line; Bybit expects one every 20 and closes the line otherwise"
    )
    bybit_connection_max_age: float = _number(
        82_800, 1, 86_400, "seconds, less up to a twentieth, after which a line's connection is replaced without a gap"
    )
    bybit_rest_requests_per_second: float = _number(
        5,
        0.1,
        50,
        "REST requests about the account per second, of which Bybit accepts 5 on each loan endpoint; "
        "while private feeds have no line, up to about 3.5 are for wallet and positions; "
        "public requests have a separate limit of 50 per second",
    )
    bybit_backfill_since: date = _setting(
        date(2026, 1, 1), "a date such as 2026-01-01", "first day whose hours Dagster can backfill, UTC"
    )
    bybit_stale_after: float = _number(
        10, 0.5, 3600, "seconds without data after which a public line is replaced; longer in a quiet market"
    )
    order_book_state_depth: int = _count(50, 0, 1000, "levels per side of our own full order books; 0 turns them off")
    order_book_state_interval: float = _number(
        1, 0, 3600, "seconds between two of our own full order books; 0 turns them off"
    )

    kafka_bootstrap_servers: Annotated[str, AfterValidator(bootstrap_servers)] = _setting(
        "localhost:9092", "host:port, several separated by commas", "brokers to connect to first"
    )
    kafka_create_topics: bool = _setting(
        True, _YES_OR_NO, "create topics that are missing; false refuses to start without them"
    )
    kafka_topic_partitions: int = _count(6, 1, 1000, "partitions of a topic that is created")
    kafka_topic_replication: int | None = _broker_default(1, 100, "replicas of a topic that is created; 3 is safe")
    kafka_topic_min_insync_replicas: int | None = _broker_default(
        1, 100, "min.insync.replicas of a topic that is created: copies that an acknowledged record has; 2 is safe"
    )
    kafka_compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = _setting(
        "lz4", "none, gzip, snappy, lz4 or zstd", "compression of batches"
    )
    kafka_delivery_timeout: float = _number(
        60, 1, 3600, "seconds a record may stay unacknowledged until a new producer continues from the journal"
    )
    kafka_security_protocol: Annotated[
        Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"], BeforeValidator(upper)
    ] = _setting("PLAINTEXT", "PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL", "the security protocol of the brokers")
    kafka_sasl_mechanism: Annotated[Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"], BeforeValidator(upper)] = (
        _setting("PLAIN", "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512", "the login mechanism, with a SASL_ protocol")
    )
    kafka_sasl_username: str | None = _setting(None, "text", "user, with a SASL_ protocol")
    kafka_sasl_password: SecretStr | None = _setting(None, "text", "password, with a SASL_ protocol")
    kafka_ssl_cafile: ExistingFile | None = _setting(
        None, "a readable PEM file", "CA certificates of the brokers; without it the system's list"
    )
    kafka_ssl_certfile: ExistingFile | None = _setting(None, "a readable PEM file", "client certificate")
    kafka_ssl_keyfile: ExistingFile | None = _setting(
        None, "a readable PEM file", "private key of the client certificate"
    )
    kafka_ssl_password: SecretStr | None = _setting(None, "text", "password of `KAFKA_SSL_KEYFILE`")
    kafka_routes: Routes = _setting(
        (),
        "TYPE=TOPIC, separated by commas, such as OrderUpdate=account_raw; in the file also as `TYPE: TOPIC`",
        "types of messages that are sent to further topics, too; topics by their names here or in Kafka",
    )
    kafka_topic_market_data: TopicText = _topic("market-data")
    kafka_topic_market_trades: TopicText = _topic("market-trades")
    kafka_topic_market_order_books: TopicText = _topic("market-order-books")
    kafka_topic_market_liquidations: TopicText = _topic("market-liquidations")
    kafka_topic_account_updates: TopicText = _topic("account-updates")
    kafka_topic_position_changes: TopicText = _topic("position-changes")
    kafka_topic_order_updates: TopicText = _topic("order-updates")
    kafka_topic_executions: TopicText = _topic("executions")
    kafka_topic_account_raw: TopicText = _topic("account_raw")
    kafka_topic_ingest_gaps: TopicText = _topic("ingest-gaps")
    kafka_topic_ingest_dead_letters: TopicText = _topic("ingest-dead-letters")

    journal_directory: Path = _setting(
        Path(".hedgelock/journal"), "a folder", "the folder of the journals, one subfolder per shard"
    )
    journal_max_bytes: ByteSize = _setting(
        ByteSize(10 * 1024**3),
        "bytes, or a size such as 10 GiB; at least 1 MiB",
        "bound on the frames that Kafka has not acknowledged; less where the disk has no room for them; when it is "
        "reached, the lines close",
        ge=1024**2,
    )
    journal_keep_bytes: ByteSize = _setting(
        ByteSize(64 * 1024**2),
        "bytes, or a size such as 1 GiB",
        "frames that Kafka has acknowledged and that stay for `hedgelock-ingest replay`; at most a quarter of "
        "what the disk has for the journal, and none when it is full",
    )

    stream_shards: ShardNames = _setting(
        ("main",),
        "names of a-z 0-9 _ - separated by commas",
        "parts of the stream, one process each; `shards` in the file lists their contents",
    )
    stream_session_hours: float = _number(24, 0.001, 720, "hours until a Dagster run hands over to the next one")
    stream_start_timeout: float = _number(
        25, 5, 3600, "seconds without an event after which a launched run that has not written a heartbeat is replaced"
    )
    stop_timeout: float = _number(10, 0.1, 600, "seconds to drain at a stop; the rest stays in the journal")

    monitoring_log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(upper)
    ] = _setting("INFO", "DEBUG, INFO, WARNING, ERROR or CRITICAL", "the lowest level that is logged")
    monitoring_log_format: Literal["json", "text"] = _setting("json", "json or text", "format of log lines on stderr")
    monitoring_host: Annotated[str, Field(min_length=1, pattern=r"^\S+$")] = _setting(
        "127.0.0.1", "a host name or address", "address on which health, stats and metrics are served"
    )
    monitoring_port: int = _count(
        8000, 0, 65535, "port of the first shard; the next one listens on the next port; 0 takes a free port"
    )

    alert_webhook_url: Annotated[SecretStr, AfterValidator(webhook_url)] | None = _setting(
        None,
        "an http:// or https:// address",
        'address to which Dagster posts that the stream has failed, and that it has recovered, as `{"text": ...}`',
    )

    shards: dict[str, ShardContents] = Field(default={}, description="contents of each shard")

    NOT_IN_ENVIRONMENT: ClassVar[frozenset[str]] = frozenset({"shards"})

    _origin_by_field: dict[str, str] = PrivateAttr(default_factory=dict)
    _warnings: tuple[str, ...] = PrivateAttr(default=())
    _proxy_secrets: tuple[str, ...] = PrivateAttr(default=())

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take arguments alone: `load_settings` reads the other sources, so that it can report all errors at once."""
        return (init_settings,)

    @property
    def has_key(self) -> bool:
        """Whether a key and its secret are given, so that private feeds and polls can run."""
        return self.bybit_api_key is not None and self.bybit_api_secret is not None

    @property
    def warnings(self) -> tuple[str, ...]:
        """Questionable but usable values that `load_settings` found, such as an unknown name in the environment."""
        return self._warnings

    def topic(self, logical_name: str) -> str:
        """Return the Kafka name of a logical topic, such as `market-data`; any other name is returned unchanged."""
        setting = "kafka_topic_" + logical_name.replace("-", "_")
        return str(getattr(self, setting)) if setting in TOPIC_FIELDS else logical_name

    @property
    def further_topics(self) -> dict[Topic, tuple[str, ...]]:
        """Kafka names of the topics that get copies of a topic's messages, by `KAFKA_ROUTES`."""
        own_names = {topic.value: str(getattr(self, topic.setting)) for topic in Topic}
        found: dict[Topic, list[str]] = {}
        for kind, _, name in (each.partition("=") for each in self.kafka_routes):
            names = found.setdefault(_TOPIC_BY_TYPE[kind], [])
            names.append(own_names.get(name, name))
        return {topic: tuple(dict.fromkeys(names)) for topic, names in found.items()}

    def shard(self, name: str) -> Shard:
        """
        Return the contents of one shard.

        The private feeds go to the shard with `PRIVATE_FEEDS: true`, or else to the first one.

        Raises:
            SettingsInvalid: No such shard in `STREAM_SHARDS`.
        """
        if name not in self.stream_shards:
            known = ", ".join(self.stream_shards)
            raise SettingsInvalid([f'no shard "{name}" in STREAM_SHARDS; known: {known}'])
        own = self.shards.get(name, ShardContents())
        port = self.monitoring_port
        return Shard(
            name=name,
            spot_symbols=_first_given(own.bybit_spot_symbols, self.bybit_spot_symbols),
            linear_symbols=_first_given(own.bybit_linear_symbols, self.bybit_linear_symbols),
            public_feeds=_first_given(own.bybit_public_feeds, self.bybit_public_feeds),
            carries_private_feeds=self._carries_private(name),
            journal_directory=self.journal_directory / name,
            monitoring_port=port + self.stream_shards.index(name) if port else 0,
        )

    def _carries_private(self, name: str) -> bool:
        declared = {each: contents.private_feeds for each, contents in self.shards.items()}
        if declared.get(name) is not None:
            return bool(declared[name])
        undecided = [each for each in self.stream_shards if declared.get(each) is None]
        return True not in declared.values() and undecided[:1] == [name]


_TOPIC_BY_TYPE = {contract.message.__name__: topic for topic, contract in CONTRACTS.items()}
TOPIC_FIELDS = tuple(topic.setting for topic in Topic)


def _first_given(own: tuple[str, ...] | None, general: tuple[str, ...]) -> tuple[str, ...]:
    return general if own is None else own


class Origin(NamedTuple):
    """One setting as `check` shows it: secrets are hidden."""

    name: str
    value: str
    origin: str


def origins(settings: Settings) -> list[Origin]:
    """List every setting with its value and its origin: the environment, a file's path, or the default."""
    return [
        Origin(
            field.upper(),
            shown_value(getattr(settings, field)),
            settings._origin_by_field.get(field, "default"),
        )
        for field in Settings.model_fields
    ]


def secrets(settings: Settings) -> tuple[str, ...]:
    """Return every secret in use, the API key and passwords of proxies too, for redaction of logs and answers."""
    values = [getattr(settings, name) for name in Settings.model_fields]
    return (*(each.get_secret_value() for each in values if isinstance(each, SecretStr)), *settings._proxy_secrets)


def shown_value(value: object) -> str:
    """Write a value as the environment would hold it; a secret is never shown."""
    match value:
        case None:
            return ""
        case SecretStr():
            return "<hidden>"
        case bool():
            return str(value).lower()
        case ByteSize():
            return _size(value)
        case float():
            return f"{value:g}"
        case tuple():
            return ",".join(value)
        case Mapping():
            return ", ".join(value)
    return str(value)


def _size(size: int) -> str:
    for unit, name in ((1024**3, "GiB"), (1024**2, "MiB")):
        if size % unit == 0:
            return f"{size // unit} {name}"
    return str(size)
