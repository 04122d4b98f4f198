"""Settings are read from the environment and a file, and every mistake is named at once."""

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from hedgelock_ingest.errors import SettingsInvalid
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.settings import Settings, load_settings, origins, secrets, shown_value

ROOT = Path(__file__).parents[2]
SHIPPED_FILE = ROOT / "config" / "collector.yaml"
NAMES = {name.upper() for name in Settings.model_fields} - {"SHARDS"}


def a_file(tmp_path: Path, text: str) -> Path:
    """Write a settings file."""
    path = tmp_path / "collector.yaml"
    path.write_text(text)
    return path


def problems(environ: dict[str, str] | None = None, config_file: Path | None = None) -> list[str]:
    """Return the problems of settings that must be refused."""
    with pytest.raises(SettingsInvalid) as refused:
        load_settings(environ or {}, config_file or SHIPPED_FILE)
    return refused.value.problems


def test_defaults_need_no_environment_and_no_file() -> None:
    """The first start on a laptop works without any setting."""
    settings = load_settings({}, SHIPPED_FILE)
    assert settings.bybit_testnet
    assert settings.bybit_public_ws_url == "wss://stream-testnet.bybit.com/v5/public"
    assert settings.bybit_public_feeds == ("tickers", "publicTrade", "orderbook.50", "allLiquidation")
    assert not settings.has_key
    assert settings.journal_max_bytes == 10 * 1024**3
    assert settings.warnings == ()


def test_shipped_file_holds_every_default_commented_out() -> None:
    """A user who uncomments a line changes nothing until the value is changed."""
    text = SHIPPED_FILE.read_text()
    assert yaml.safe_load(text) is None
    uncommented = re.sub(r"^# (?=[A-Z_]+:|shards:| )", "", text, flags=re.MULTILINE)
    assert set(yaml.load(uncommented, yaml.BaseLoader)) == NAMES | {"shards"}  # noqa: S506


def test_shipped_file_uncommented_is_the_same_as_without_it(tmp_path: Path) -> None:
    """The defaults written in the file are those of the program."""
    uncommented = re.sub(r"^# (?=[A-Z_]+:)", "", SHIPPED_FILE.read_text(), flags=re.MULTILINE)
    assert load_settings({}, a_file(tmp_path, uncommented)).model_dump() == Settings().model_dump()


def test_the_documentation_lists_each_setting_as_the_class_has_it() -> None:
    """Operators read docs/settings.md; it must match the program."""
    rows = re.findall(
        r"^\| `([A-Z_]+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", (ROOT / "docs/settings.md").read_text(), re.MULTILINE
    )
    documented = {name: (default, allowed, about) for name, default, allowed, about in rows}
    assert len(rows) == len(documented)
    assert documented == {name: documentation(name.lower()) for name in NAMES}


def documentation(field_name: str) -> tuple[str, str, str]:
    """Return the columns of a setting's row: default, allowed, meaning."""
    declared = Settings.model_fields[field_name]
    extra = declared.json_schema_extra
    assert isinstance(extra, dict)
    value = shown_value(declared.default)
    default = str(extra["default"]) if "default" in extra else f"`{value}`" if value else "none"
    return default, str(extra["allowed"]), str(declared.description)


def test_the_environment_wins_over_the_file_and_each_origin_is_known(tmp_path: Path) -> None:
    """An operator sees in `check` which of two values applies, and its origin."""
    path = a_file(tmp_path, "BYBIT_LINES: 1\nbybit_account_id: desk-1\nBYBIT_STALE_AFTER: 20\n")
    settings = load_settings({"BYBIT_LINES": "2", "HEDGELOCK_CONFIG": str(path), "HOME": "/root"})
    assert (settings.bybit_lines, settings.bybit_account_id, settings.bybit_stale_after) == (2, "desk-1", 20)
    shown = {each.name: (each.value, each.origin) for each in origins(settings)}
    assert shown["BYBIT_LINES"] == ("2", "environment")
    assert shown["BYBIT_ACCOUNT_ID"] == ("desk-1", str(path))
    assert shown["BYBIT_STALE_AFTER"] == ("20", str(path))
    assert shown["BYBIT_TESTNET"] == ("true", "default")
    assert set(shown) == NAMES | {"SHARDS"}


def test_file_of_the_working_folder_is_used_if_it_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `HEDGELOCK_CONFIG`, `config/collector.yaml` is used, and its absence is no error."""
    monkeypatch.chdir(tmp_path)
    assert load_settings({}).bybit_lines == 2
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "collector.yaml").write_text("BYBIT_LINES: 1")
    assert load_settings({}).bybit_lines == 1
    assert load_settings({"HEDGELOCK_CONFIG": " "}).bybit_lines == 1


def test_environment_and_file_are_read_alike(tmp_path: Path) -> None:
    """A value means the same in both, so a secret that looks like a number is unchanged."""
    path = a_file(
        tmp_path,
        """
        BYBIT_API_KEY: 0123
        BYBIT_API_SECRET: 1e5
        BYBIT_TESTNET: no
        BYBIT_SPOT_SYMBOLS: [BTCUSDT, ETHUSDT, BTCUSDT]
        BYBIT_LINEAR_SYMBOLS: " BTCUSDT , SOLUSDT "
        JOURNAL_MAX_BYTES: 1.5 GiB
        MONITORING_LOG_LEVEL: debug
        KAFKA_BOOTSTRAP_SERVERS: a:1, [::1]:2
        BYBIT_REST_URL: http://127.0.0.1:9001/
        """,
    )
    settings = load_settings({}, path)
    assert secrets(settings) == ("0123", "1e5")
    assert not settings.bybit_testnet
    assert settings.bybit_spot_symbols == ("BTCUSDT", "ETHUSDT")
    assert settings.bybit_linear_symbols == ("BTCUSDT", "SOLUSDT")
    assert settings.journal_max_bytes == 1.5 * 1024**3
    assert settings.monitoring_log_level == "DEBUG"
    assert settings.kafka_bootstrap_servers == "a:1,[::1]:2"
    assert settings.bybit_rest_url == "http://127.0.0.1:9001"
    assert settings.bybit_private_ws_url == "wss://stream.bybit.com/v5/private"


def test_empty_counts_as_not_set_except_where_it_turns_something_off() -> None:
    """Compose files pass unset variables on as empty ones; an empty category is a choice."""
    settings = load_settings({"BYBIT_API_KEY": "", "BYBIT_LINES": " ", "BYBIT_SPOT_SYMBOLS": ""}, SHIPPED_FILE)
    assert settings.bybit_api_key is None
    assert settings.bybit_lines == 2
    assert settings.bybit_spot_symbols == ()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("BYBIT_LINES", "3", "allowed: 1 or 2"),
        ("BYBIT_LINES", "two", "allowed: 1 or 2"),
        ("BYBIT_TESTNET", "maybe", "allowed: true or false"),
        ("BYBIT_SPOT_SYMBOLS", "BTCUSDT,ethusdt", '"ethusdt" is no symbol, "ETHUSDT" perhaps'),
        ("BYBIT_LINEAR_SYMBOLS", "BTC/USDT", '"BTC/USDT" is no symbol'),
        ("BYBIT_PUBLIC_FEEDS", "tickers,orderbook.25", '"orderbook.25" is no feed'),
        ("BYBIT_WEBSOCKET_CLIENT", "aiohttp", "allowed: websockets or pybit"),
        ("BYBIT_PUBLIC_WS_URL", "http://127.0.0.1", "allowed: a ws:// or wss:// address"),
        ("BYBIT_PRIVATE_WS_URL", "wss://", "allowed: a ws:// or wss:// address"),
        ("BYBIT_PRIVATE_WS_URL", "wss://host:99999/", "this is no address"),
        ("BYBIT_REST_URL", "https://api.bybit.com/v5", "it has a path"),
        ("BYBIT_ACCOUNT_ID", "desk:1", "allowed: 1 to 128 characters without spaces and colons"),
        ("BYBIT_STALE_AFTER", "nan", "allowed: a number from 0.5 to 3600"),
        ("BYBIT_RECONNECT_MAX_DELAY", "inf", "allowed: a number from 0.01 to 600"),
        ("BYBIT_COLLATERAL_POLL_INTERVAL", "0", "allowed: a number from 0.2 to 60"),
        ("ORDER_BOOK_STATE_DEPTH", "1.5", "allowed: a whole number from 0 to 1000"),
        ("KAFKA_BOOTSTRAP_SERVERS", "localhost", '"localhost" is not host:port'),
        ("KAFKA_BOOTSTRAP_SERVERS", "localhost:0", '"localhost:0" is not host:port'),
        ("KAFKA_BOOTSTRAP_SERVERS", ",", "no server is named"),
        ("KAFKA_COMPRESSION", "brotli", "allowed: none, gzip, snappy, lz4 or zstd"),
        ("KAFKA_ROUTES", "OrderUpdates=account_raw", '"OrderUpdates" is no type of message; types: MarketData, Trade'),
        ("KAFKA_ROUTES", "OrderUpdate", '"OrderUpdate" is not TYPE=TOPIC'),
        ("KAFKA_ROUTES", "Trade=a b", '"a b" cannot be the name of a topic for copies'),
        ("KAFKA_ROUTES", "Trade=", '"" cannot be the name of a topic for copies'),
        ("KAFKA_ROUTES", "Trade=__consumer_offsets", '"__consumer_offsets" cannot be the name of a topic for copies'),
        ("KAFKA_TOPIC_REPLICATION", "0", "leave it out for the default: the broker's"),
        ("KAFKA_TOPIC_MIN_INSYNC_REPLICAS", "two", "allowed: a whole number from 1 to 100"),
        ("KAFKA_TOPIC_EXECUTIONS", "a b", "Kafka does not take this name"),
        ("KAFKA_TOPIC_EXECUTIONS", "..", "Kafka does not take this name"),
        ("KAFKA_TOPIC_EXECUTIONS", "x" * 250, "Kafka does not take this name"),
        ("KAFKA_SSL_CAFILE", "/no/such/file.pem", "there is no such file"),
        ("JOURNAL_MAX_BYTES", "1023 KiB", "at least 1 MiB"),
        ("JOURNAL_MAX_BYTES", "much", "such as 10 GiB"),
        ("STREAM_SHARDS", "main,Two", '"Two" cannot name a shard'),
        ("STREAM_SHARDS", ",", "allowed: names of a-z 0-9 _ -"),
        ("STOP_TIMEOUT", "-1", "allowed: a number from 0.1 to 600"),
        ("MONITORING_LOG_LEVEL", "LOUD", "allowed: DEBUG, INFO, WARNING, ERROR or CRITICAL"),
        ("MONITORING_HOST", "a b", "allowed: a host name or address"),
        ("MONITORING_PORT", "65536", "allowed: a whole number from 0 to 65535"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(name: str, value: str, message: str) -> None:
    """One line states what was found, where, what is allowed and what to do."""
    (problem,) = problems({name: value})
    assert problem.startswith(f'{name} (environment): found "{value[:100]}')
    assert message in problem
    assert "correct it, or leave it out for the default" in problem


def test_everything_that_is_wrong_is_named_at_once() -> None:
    """One start reports all mistakes, of single values and of combinations."""
    found = problems(
        {
            "BYBIT_LINES": "3",
            "BYBIT_TESTNET": "maybe",
            "BYBIT_API_KEY": "abc",
            "BYBIT_RECONNECT_INITIAL_DELAY": "40",
            "BYBIT_API_SECRT": "x",
        }
    )
    assert [line.split()[0] for line in found] == [
        "BYBIT_TESTNET",
        "BYBIT_LINES",
        "BYBIT_API_KEY",
        "BYBIT_RECONNECT_INITIAL_DELAY",
        "note:",
    ]
    assert "did you mean BYBIT_API_SECRET?" in found[-1]


def test_combinations_with_an_invalid_value_are_not_judged() -> None:
    """A wrong key must not also be reported as missing."""
    (problem,) = problems({"BYBIT_API_KEY": "a b", "BYBIT_API_SECRET": "abc"})
    assert problem.startswith("BYBIT_API_KEY (environment): found <hidden>")


@pytest.mark.parametrize("address", ["hooks.example/of-us", "ftp://hooks.example/of-us", "https:///of-us"])
def test_webhook_that_is_no_address_is_reported_and_stays_secret(address: str) -> None:
    """Anyone with the address can post to it."""
    (problem,) = problems({"ALERT_WEBHOOK_URL": address})
    assert problem.startswith("ALERT_WEBHOOK_URL (environment): found <hidden>")
    assert "of-us" not in problem
    assert "of-us" not in repr(load_settings({"ALERT_WEBHOOK_URL": "https://hooks.example/of-us"}))


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=6))
def test_no_message_holds_the_value_of_a_secret(secret: str) -> None:
    """Problems are printed and logged, so they name a secret's setting and never its value."""
    secret = f"k{secret}~ \u00e9"
    environ = {
        "BYBIT_API_KEY": secret,
        "BYBIT_API_SECRET": secret,
        "BYBIT_LINES": "3",
        "BYBIT_REST_URL": f"http://u:{secret}@h",
    }
    with pytest.raises(SettingsInvalid) as refused:
        load_settings(environ, SHIPPED_FILE)
    assert len(refused.value.problems) == 3
    assert secret not in str(refused.value)


def test_a_key_is_shown_nowhere() -> None:
    """Neither `check` nor a repr in a log or traceback shows a secret."""
    settings = load_settings({"BYBIT_API_KEY": "kkk-1", "BYBIT_API_SECRET": "sss-1"}, SHIPPED_FILE)
    shown = repr(settings) + str(origins(settings))
    assert settings.has_key
    assert "kkk-1" not in shown
    assert "sss-1" not in shown
    with pytest.raises(ValidationError) as refused:
        Settings(bybit_api_key=SecretStr("kkk-1 "), bybit_lines=3)
    assert "kkk-1" not in str(refused.value)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"BYBIT_API_KEY": "k"}, "BYBIT_API_KEY is set but BYBIT_API_SECRET is not"),
        ({"BYBIT_API_SECRET": "s"}, "BYBIT_API_SECRET is set but BYBIT_API_KEY is not"),
        ({"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_USERNAME": "u"}, "KAFKA_SASL_PASSWORD is not set"),
        ({"KAFKA_SASL_USERNAME": "u"}, "use SASL_SSL or SASL_PLAINTEXT, or remove the user"),
        ({"KAFKA_SSL_CAFILE": __file__}, "which does not encrypt; use SSL or SASL_SSL, or remove the file"),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_KEYFILE": __file__},
            "KAFKA_SSL_CERTFILE is not; set both or neither",
        ),
        ({"BYBIT_SPOT_SYMBOLS": "", "BYBIT_LINEAR_SYMBOLS": ""}, "this service would have nothing to do"),
        ({"BYBIT_PUBLIC_FEEDS": ""}, "this service would have nothing to do"),
        (
            {"BYBIT_LINEAR_SYMBOLS": "", "BYBIT_PUBLIC_FEEDS": "allLiquidation"},
            "this service would have nothing to do",
        ),
        ({"BYBIT_RECONNECT_MAX_DELAY": "0.1"}, "lower the first or raise the second"),
        ({"KAFKA_TOPIC_EXECUTIONS": "market-data"}, 'KAFKA_TOPIC_EXECUTIONS are both "market-data"'),
        ({"KAFKA_ROUTES": "OrderUpdate=order-updates"}, 'sends OrderUpdate to "order-updates", its own topic'),
        (
            {"KAFKA_ROUTES": "OrderUpdate=orders", "KAFKA_TOPIC_ORDER_UPDATES": "orders"},
            'sends OrderUpdate to "orders", its own topic',
        ),
        ({"KAFKA_ROUTES": "AccountRaw=account-updates"}, '"account-updates", which is compacted'),
        (
            {"KAFKA_TOPIC_REPLICATION": "1", "KAFKA_TOPIC_MIN_INSYNC_REPLICAS": "2"},
            "lower the first or raise the second",
        ),
        ({"STREAM_SHARDS": "a,b"}, 'shards "a" and "b" both carry linear allLiquidation.BTCUSDT'),
    ],
)
def test_settings_that_do_not_fit_together_are_named(environ: dict[str, str], message: str) -> None:
    """Each value is valid, but the combination is not."""
    (problem,) = problems(environ)
    assert message in problem


def test_a_key_without_market_data_is_enough() -> None:
    """A treasury service may need the account and no market data."""
    settings = load_settings(
        {"BYBIT_SPOT_SYMBOLS": "", "BYBIT_LINEAR_SYMBOLS": "", "BYBIT_API_KEY": "k", "BYBIT_API_SECRET": "s"},
        SHIPPED_FILE,
    )
    assert list(settings.shard("main").public_channels()) == []
    assert settings.shard("main").carries_private_feeds


SHARDED = """
STREAM_SHARDS: [spot, linear]
MONITORING_PORT: 9000
shards:
  spot:
    BYBIT_LINEAR_SYMBOLS: []
  linear:
    bybit_spot_symbols:
    bybit_linear_symbols: BTCUSDT,ETHUSDT
    BYBIT_PUBLIC_FEEDS: [tickers]
    PRIVATE_FEEDS: true
"""


def test_each_shard_carries_what_the_file_assigns(tmp_path: Path) -> None:
    """A large user splits the stream; each part has its own folder and port, and one has the account."""
    settings = load_settings({}, a_file(tmp_path, SHARDED))
    spot, linear = settings.shard("spot"), settings.shard("linear")
    assert set(spot.public_channels()) == {
        ("spot", "tickers.BTCUSDT"),
        ("spot", "publicTrade.BTCUSDT"),
        ("spot", "orderbook.50.BTCUSDT"),
    }
    assert set(linear.public_channels()) == {("linear", "tickers.BTCUSDT"), ("linear", "tickers.ETHUSDT")}
    assert (spot.carries_private_feeds, linear.carries_private_feeds) == (False, True)
    assert (spot.monitoring_port, linear.monitoring_port) == (9000, 9001)
    assert linear.journal_directory == Path(".hedgelock/journal/linear")
    with pytest.raises(SettingsInvalid, match='no shard "main" in STREAM_SHARDS; known: spot, linear'):
        settings.shard("main")


def test_the_first_shard_has_the_account_unless_the_file_assigns_it(tmp_path: Path) -> None:
    """The private feeds must run exactly once."""
    settings = load_settings({}, a_file(tmp_path, SHARDED.replace("PRIVATE_FEEDS: true", "")))
    assert settings.shard("spot").carries_private_feeds
    assert not settings.shard("linear").carries_private_feeds
    settings = load_settings(
        {},
        a_file(
            tmp_path,
            SHARDED.replace("  spot:\n", "  spot:\n    PRIVATE_FEEDS: no\n").replace("PRIVATE_FEEDS: true", ""),
        ),
    )
    assert [settings.shard(name).carries_private_feeds for name in ("spot", "linear")] == [False, True]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("STREAM_SHARDS: [spot, linear]", ""), 'shards: "spot" is described but STREAM_SHARDS is main'),
        (("PRIVATE_FEEDS: true", "PRIVATE_FEDS: true"), "linear.private_feds: unknown name"),
        (("PRIVATE_FEEDS: true", "PRIVATE_FEEDS: perhaps"), "linear.private_feeds: "),
        (("    BYBIT_LINEAR_SYMBOLS: []", "    PRIVATE_FEEDS: true\n    BYBIT_LINEAR_SYMBOLS: []"), "only one may"),
        (("BTCUSDT,ETHUSDT", "btcusdt"), '"btcusdt" is no symbol'),
        (("MONITORING_PORT: 9000", "MONITORING_PORT: 65535"), "lower it to 65534 or less"),
        (("[spot, linear]", "[spot, linear, a-b, a_b]"), '"a-b" and "a_b" differ only in - and _'),
        (("    bybit_linear_symbols: BTCUSDT,ETHUSDT", "    bybit_linear_symbols: []"), "have nothing to do"),
    ],
)
def test_mistakes_in_shards_are_named(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    """Doubled records, a missing account or a shard that is never started are found before the start."""
    assert message in "\n".join(problems({}, a_file(tmp_path, SHARDED.replace(*change))))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("BYBIT_LINE: 1", "BYBIT_LINE in {path} is no setting; did you mean BYBIT_LINES?"),
        ("colour: red", "colour in {path} is no setting; docs/settings.md lists all"),
        ("BYBIT_LINES: 1\nbybit_lines: 2", "BYBIT_LINES occurs twice in {path}; remove one"),
        ("BYBIT_LINES: 1\nBYBIT_LINES: 2", "BYBIT_LINES occurs twice in {path}; remove one"),
        ("- BYBIT_LINES", "settings file {path}: expected lines of the form NAME: value"),
        ("BYBIT_LINES: [1\nA: b", "settings file {path}: not YAML at line 2"),
        ("BYBIT_API_SECRET: *s3cret", "settings file {path}: not YAML at line 1"),
        ("BYBIT_LINES: [[1]]", "BYBIT_LINES ({path}): found \"['1']\""),
        ("shards: main", "SHARDS ({path}): "),
        ("KAFKA_ROUTES:\n  Trade:", 'KAFKA_ROUTES ({path}): found "Trade="'),
        ("KAFKA_ROUTES:\n  Trade: a\n  Trade: b", "KAFKA_ROUTES.Trade occurs twice in {path}; remove one"),
        ("KAFKA_ROUTES:\n  - Trade: a", "KAFKA_ROUTES ({path}): found "),
        ("KAFKA_ROUTES:\n  Trade: [{a: b}]", "KAFKA_ROUTES ({path}): found "),
        ("shards:\n  main: everything", "SHARDS ({path}): main: "),
    ],
)
def test_mistakes_in_the_file_are_named_with_its_path(tmp_path: Path, text: str, message: str) -> None:
    """A misspelt name in the file would be silently ignored otherwise."""
    path = a_file(tmp_path, text)
    (problem,) = problems({}, path)
    assert message.format(path=path) in problem
    assert "s3cret" not in problem


@pytest.mark.parametrize("name", ["nowhere.yaml", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    """`HEDGELOCK_CONFIG` is set explicitly, so its file must exist."""
    with pytest.raises(SettingsInvalid, match="correct HEDGELOCK_CONFIG"):
        load_settings({"HEDGELOCK_CONFIG": str(tmp_path / name)})


def test_unknown_names_in_the_environment_cause_a_warning() -> None:
    """Another program may use the prefix, so the start continues; a misspelt name is reported."""
    environ = {"BYBIT_SPOT_SYMBOL": "ETHUSDT", "KAFKA_HOME": "/opt", "BYBIT_TYPO": "x", "PATH": "/bin"}
    settings = load_settings(environ, SHIPPED_FILE)
    assert settings.warnings[1:] == (
        "KAFKA_HOME in the environment is no setting; docs/settings.md lists all",
        "BYBIT_TYPO in the environment is no setting; docs/settings.md lists all",
    )
    assert (
        settings.warnings[0] == "BYBIT_SPOT_SYMBOL in the environment is no setting; did you mean BYBIT_SPOT_SYMBOLS?"
    )


def test_replicas_are_the_brokers_unless_they_are_set() -> None:
    """A cluster's administrator has chosen a default that fits its number of brokers."""
    settings = load_settings({}, SHIPPED_FILE)
    assert (settings.kafka_topic_replication, settings.kafka_topic_min_insync_replicas) == (None, None)
    environ = {"KAFKA_TOPIC_REPLICATION": "3", "KAFKA_TOPIC_MIN_INSYNC_REPLICAS": "2"}
    settings = load_settings(environ, SHIPPED_FILE)
    assert (settings.kafka_topic_replication, settings.kafka_topic_min_insync_replicas) == (3, 2)


ROUTES_IN_A_FILE = """
KAFKA_TOPIC_ACCOUNT_RAW: desk.account
KAFKA_ROUTES:
  OrderUpdate: account_raw
  Execution: [account_raw, desk.fills, desk.account]
"""


@pytest.mark.parametrize(
    "text",
    [
        ROUTES_IN_A_FILE,
        "KAFKA_TOPIC_ACCOUNT_RAW: desk.account\n"
        "KAFKA_ROUTES: OrderUpdate=account_raw, Execution = account_raw, Execution=desk.fills",
        "KAFKA_TOPIC_ACCOUNT_RAW: desk.account\n"
        "KAFKA_ROUTES: [OrderUpdate=desk.account, Execution=desk.account, Execution=desk.fills]",
    ],
)
def test_routes_are_a_mapping_or_text(tmp_path: Path, text: str) -> None:
    """The environment has text only; a topic of ours is found by either of its names."""
    settings = load_settings({}, a_file(tmp_path, text))
    assert settings.further_topics == {
        Topic.ORDER_UPDATES: ("desk.account",),
        Topic.EXECUTIONS: ("desk.account", "desk.fills"),
    }


def test_routes_are_shown_as_the_environment_has_them() -> None:
    """`check` shows a value that can be copied."""
    settings = load_settings({"KAFKA_ROUTES": "Trade=a,Trade=b"}, SHIPPED_FILE)
    assert {each.name: each.value for each in origins(settings)}["KAFKA_ROUTES"] == "Trade=a,Trade=b"
    assert load_settings({}, SHIPPED_FILE).further_topics == {}


def test_topics_are_found_by_our_names() -> None:
    """All code uses one name per topic, whatever its name in Kafka."""
    settings = Settings(kafka_topic_account_raw="desk.account")
    assert settings.topic("account_raw") == "desk.account"
    assert settings.topic("market-data") == "market-data"
    assert settings.topic("partitions") == "partitions"
    assert settings.topic("replication") == "replication"
