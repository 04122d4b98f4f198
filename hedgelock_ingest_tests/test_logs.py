"""Log lines are structured, complete, and never contain a secret."""

import asyncio
import base64
import io
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import structlog
from aiokafka.errors import NotLeaderForPartitionError, TopicAuthorizationFailedError
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from hedgelock_ingest.logs import OURS, configure, configure_ours
from hedgelock_ingest.redaction import HIDDEN, Redaction
from hedgelock_ingest.settings import Settings

KEY = "k3y-7f1Qw"
SECRET = 's3cr3t/+ "quoted" \'ü'
PASSWORD = "Pa55-w0rd\nsecond-line"
SETTINGS = Settings(
    bybit_api_key=SecretStr(KEY),
    bybit_api_secret=SecretStr(SECRET),
    kafka_sasl_password=SecretStr(PASSWORD),
    monitoring_log_level="DEBUG",
)
# Long enough, and of letters that no event name or field name contains by chance.
SECRETS = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="abcdefghijklmnopqrstuvwxyz<>"),
    min_size=9,
).filter(lambda text: len(text.strip()) > 8 and not text.strip().isdigit())
NESTED = st.recursive(
    st.just("MARK") | st.integers() | st.none() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=4) | st.just("MARK"), inner, max_size=3)
        | st.tuples(inner, inner)
    ),
    max_leaves=8,
)


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Return the destination of the lines; the process's logging is restored afterwards."""
    before, hook = logging.getLogger().handlers, threading.excepthook
    yield io.StringIO()
    logging.getLogger().handlers, threading.excepthook = before, hook
    logging.captureWarnings(False)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """Return the lines logged as JSON."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_holds_event_fields_level_and_utc_time(stream: io.StringIO) -> None:
    """A line can be searched by its parts, independent of the machine's time zone."""
    configure(SETTINGS, stream)
    with structlog.contextvars.bound_contextvars(shard="main", trace_id="5f0c"):
        structlog.get_logger(f"{OURS}.line").info("line_connected", line="linear-a", attempt=3)
    (line,) = lines(stream)
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert line["timestamp"].endswith("Z")
    assert {**line, "timestamp": ""} == {
        "timestamp": "",
        "level": "info",
        "event": "line_connected",
        "logger": "hedgelock_ingest.line",
        "line": "linear-a",
        "attempt": 3,
        "shard": "main",
        "trace_id": "5f0c",
    }


def test_text_format_is_one_readable_line(stream: io.StringIO) -> None:
    """On a laptop the same events read as text, with the same redaction."""
    configure(SETTINGS.model_copy(update={"monitoring_log_format": "text"}), stream)
    structlog.get_logger(OURS).warning("line_lost", line="spot-a", cause=f"key {KEY}")
    (line,) = stream.getvalue().splitlines()
    assert "line_lost" in line
    assert "line=spot-a" in line
    assert KEY not in line


def test_lines_below_the_level_are_left_out(stream: io.StringIO) -> None:
    """`MONITORING_LOG_LEVEL` applies to our lines."""
    configure(SETTINGS.model_copy(update={"monitoring_log_level": "WARNING"}), stream)
    structlog.get_logger(OURS).info("quiet")
    structlog.get_logger(OURS).warning("loud")
    assert [line["event"] for line in lines(stream)] == ["loud"]


@pytest.mark.parametrize("library", ["aiokafka.conn", "websockets.client", "pybit._http_manager", "asyncio"])
def test_libraries_log_from_warnings_upward_even_at_debug(stream: io.StringIO, library: str) -> None:
    """pybit, websocket-client and websockets log keys and frames at DEBUG, so that level is never enabled for them."""
    configure(SETTINGS, stream)
    logging.getLogger(library).debug("the signature is %s", "abc")
    logging.getLogger(library).info("connected")
    logging.getLogger(library).warning("no answer from %s", "broker 1")
    (line,) = lines(stream)
    assert (line["event"], line["logger"], line["level"]) == ("no answer from broker 1", library, "warning")


def test_only_the_topic_that_has_no_leader_yet_is_left_out(stream: io.StringIO) -> None:
    """A start with new topics looked like a failure; any other failure of the same request is logged."""
    configure(SETTINGS, stream)
    fetcher = logging.getLogger("aiokafka.consumer.fetcher")
    for error in (NotLeaderForPartitionError(), TopicAuthorizationFailedError()):
        fetcher.error("Failed fetch offsets from %s: %s", 1, error)
    fetcher.error("Failed fetch from %s: %s", 1, NotLeaderForPartitionError())
    logging.getLogger("aiokafka").error("Failed fetch offsets from %s: %s", 1, NotLeaderForPartitionError())
    assert [line["event"] for line in lines(stream)] == [
        "Failed fetch offsets from 1: [Error 29] TopicAuthorizationFailedError",
        "Failed fetch from 1: [Error 6] NotLeaderForPartitionError",
        "Failed fetch offsets from 1: [Error 6] NotLeaderForPartitionError",
    ]


def test_configuring_twice_writes_a_line_once(stream: io.StringIO) -> None:
    """A command may configure logs before and after it has read its settings."""
    configure(SETTINGS, stream)
    configure(SETTINGS, stream)
    structlog.get_logger(OURS).info("once")
    logging.getLogger("aiokafka").warning("once too")
    assert len(lines(stream)) == 2


def test_host_keeps_its_own_lines(stream: io.StringIO) -> None:
    """Dagster's code server writes its lines itself; with our handler at the root, each would be written twice."""
    logging.getLogger().handlers = []
    configure_ours(SETTINGS, stream)
    logging.getLogger("dagster.of_a_test").error("a line of the host")
    structlog.get_logger(OURS).warning("setting_wrong", problem=f"found {KEY}")
    (line,) = lines(stream)
    assert (line["event"], line["problem"]) == ("setting_wrong", f"found {HIDDEN}")


def test_a_flood_of_a_library_is_limited_and_counted(stream: io.StringIO) -> None:
    """aiokafka logs without bound while brokers are unavailable; the count shows how many lines were dropped."""
    configure(SETTINGS, stream)
    for _ in range(500):
        logging.getLogger("aiokafka.conn").warning("cannot connect")
    logging.getLogger("aiokafka.client").error("another logger is not held back")
    for handler in logging.getLogger(OURS).handlers:
        handler.close()
    written = lines(stream)
    assert [line["event"] for line in written].count("cannot connect") == 10
    assert written[-2]["logger"] == "aiokafka.client"
    assert written[-1] == {
        "timestamp": written[-1]["timestamp"],
        "level": "warning",
        "event": "log_lines_suppressed",
        "logger": "aiokafka.conn",
        "suppressed": 490,
    }


def test_our_lines_are_never_limited(stream: io.StringIO) -> None:
    """The limit applies to libraries only."""
    configure(SETTINGS, stream)
    for number in range(100):
        structlog.get_logger(OURS).info("event", number=number)
    assert len(lines(stream)) == 100


@pytest.mark.parametrize("form", ["json", "text"])
def test_tracebacks_show_neither_secrets_nor_local_values(stream: io.StringIO, form: str) -> None:
    """An exception may quote a request, and its stack frames hold keys in local variables."""
    configure(SETTINGS.model_copy(update={"monitoring_log_format": form}), stream)
    local_only = "value-of-a-local"
    try:
        try:
            raise ValueError(f"bad header {KEY} {SECRET!r} {local_only[:0]}")
        except ValueError as error:
            raise RuntimeError(PASSWORD) from error
    except RuntimeError as error:
        structlog.get_logger(OURS).exception("failed", cause=error)
    text = stream.getvalue()
    assert "Traceback" in text
    assert "RuntimeError" in text
    for hidden in (KEY, "s3cr3t", "Pa55", "second-line", local_only):
        assert hidden not in text


async def test_an_exception_group_of_tasks_is_redacted_line_by_line(stream: io.StringIO) -> None:
    """A group indents each line of a message, which splits a secret of several lines."""
    configure(SETTINGS, stream)

    async def fail() -> None:
        raise OSError(PASSWORD)

    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail())
    except* OSError:
        structlog.get_logger(OURS).exception("failed")
    assert "OSError" in stream.getvalue()
    assert "Pa55" not in stream.getvalue()
    assert "second-line" not in stream.getvalue()


def test_failure_of_a_thread_is_logged_and_redacted(stream: io.StringIO) -> None:
    """pybit runs its own threads; their errors must neither vanish nor quote a key."""
    configure(SETTINGS, stream)

    def die() -> None:
        raise RuntimeError(f"auth with {KEY} failed")

    thread = threading.Thread(target=die, name="reader")
    thread.start()
    thread.join()
    (line,) = lines(stream)
    assert (line["event"], line["thread"]) == ("thread_failed", "reader")
    assert "RuntimeError: auth with <hidden> failed" in line["exception"]


@given(secret=SECRETS, nested=NESTED)
def test_no_secret_comes_out_of_any_field_or_exception(secret: str, nested: object) -> None:
    """A secret anywhere in nested values or an exception's text is not in the line."""
    secret = secret.strip()
    stream = io.StringIO()
    settings = Settings(bybit_api_secret=SecretStr(secret), bybit_api_key=SecretStr("other"))
    configure(settings, stream)
    try:
        marked = json.loads(json.dumps(nested).replace("MARK", json.dumps(secret)[1:-1]))
        structlog.get_logger(OURS).info(f"event {secret}", nested=marked, **{secret: 1})
        try:
            raise RuntimeError(f"{secret} {secret!r}", marked)
        except RuntimeError:
            structlog.get_logger(OURS).exception("failed")
    finally:
        structlog.reset_defaults()
    for line in stream.getvalue().splitlines():
        for text in texts(json.loads(line)):
            assert secret not in text
            assert repr(secret)[1:-1] not in text


def texts(value: object) -> Iterator[str]:
    """Yield each text inside a decoded line."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from (key, *texts(each))
    elif isinstance(value, list):
        for each in value:
            yield from texts(each)


@pytest.mark.parametrize(
    "spelling",
    [
        SECRET,
        quote(SECRET, safe=""),
        base64.b64encode(SECRET.encode()).decode(),
        json.dumps(SECRET),
        repr(SECRET),
        repr(SECRET.encode()),
        SECRET.encode().hex(),
    ],
)
def test_usual_encodings_of_a_secret_are_redacted(spelling: str) -> None:
    """A URL, an encoded header or a repr reveals a secret as well as its plain text."""
    assert "s3cr3t" not in Redaction([SECRET]).text(f"<< {spelling} >>")
    assert HIDDEN in Redaction([SECRET]).text(f"<< {spelling} >>")


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        ('{"X-BAPI-API-KEY": "abcDEF123", "X-BAPI-SIGN": "f00d"}', ["abcDEF123", "f00d"]),
        ("X-BAPI-SIGN: 0a1b2c", ["0a1b2c"]),
        ("GET /v5/user?api_key=abcd&sign=ef01&symbol=BTCUSDT", ["abcd", "ef01"]),
        (f"signed {'0a' * 32} was refused", ["0a0a"]),
        ('{"walletBalance":"12.5","totalEquity":"99.1"}', ["12.5", "99.1"]),
        ("Signature='un known'", ["un known"]),
    ],
)
def test_text_that_looks_secret_is_replaced_even_if_it_is_not_ours(text: str, gone: list[str]) -> None:
    """A signature is new in each request, so it is found by its position and format."""
    redacted = Redaction().text(text)
    assert HIDDEN in redacted
    assert not [each for each in gone if each in redacted]


def test_rate_limit_headers_of_bybit_stay_readable() -> None:
    """They show an operator why requests wait, and contain no secret."""
    text = "X-Bapi-Limit-Status: 3"
    assert Redaction().text(text) == text


@pytest.mark.parametrize(
    "name",
    [
        *("signature", "sign", "api_key", "X-BAPI-SIGN", "balances", "positions", "wallet", "password"),
        *("margin", "total_perp_upl", "totalInitialMargin", "account_mm_rate", "usdValue", "accrued_interest"),
    ],
)
def test_fields_with_sensitive_names_lose_their_value(name: str) -> None:
    """A balance cannot be recognised by its digits, only by its name, at any depth."""
    assert Redaction().value({"inner": [{name: {"BTC": "1.5"}}]}) == {"inner": [{name: HIDDEN}]}


@pytest.mark.parametrize("name", ["position", "journal_position", "assignment", "symbol", "unsigned"])
def test_fields_with_harmless_names_keep_their_value(name: str) -> None:
    """`position` is a number in the journal here, and operators need it."""
    assert Redaction().value({name: 7}) == {name: 7}


def test_objects_are_shown_by_type() -> None:
    """The repr of an object may contain anything, so a log line shows only its type."""
    assert Redaction().value([object(), b"raw"]) == ["<object>", "<3 bytes>"]


def test_a_short_secret_is_not_replaced_within_words() -> None:
    """A password of one letter is replaced only as a separate word, so that the log stays readable."""
    assert Redaction(["a"]).text("a bad password: a") == f"{HIDDEN} bad password: {HIDDEN}"


@pytest.mark.timeout(30)
@pytest.mark.parametrize("text", ["x-bapi-", "0a", "sign=", '"balance', "sign ", 'sign="', "a-"])
def test_long_texts_are_searched_in_linear_time(text: str) -> None:
    """The event loop waits for a log line, so no text may make the search quadratic."""
    Redaction([SECRET]).text(text * (1_000_000 // len(text)))
