"""Each failure to reach Bybit says what answered, what did not, and which side to change: lines and REST alike."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from hedgelock_ingest.bybit import pybit_client, websockets_client
from hedgelock_ingest.bybit.connection_failure import Target
from hedgelock_ingest.bybit.rest_http import open_http
from hedgelock_ingest.bybit.rest_port import RestRequest
from hedgelock_ingest.bybit.socket_port import WebSocket
from hedgelock_ingest.errors import LineLost, RestError, RestUnavailable
from hedgelock_ingest.settings.proxies import Proxy
from hedgelock_ingest_tests.builders import AT_MS
from hedgelock_ingest_tests.bybit.foreign_servers import Authority, a_page, foreign_server
from hedgelock_ingest_tests.bybit.rest import QUICK

CLIENTS = {"websockets": websockets_client.open_connection, "pybit": pybit_client.open_connection}
SHORT_S = 1.0
"""Patience with what never answers: enough for all that comes before."""

TLS_ALERT = b"\x15\x03\x01\x00\x02\x02\x46"
"""A TLS server's answer to plain text: fatal, protocol version (RFC 8446, 6)."""

type Open = Callable[..., Awaitable[WebSocket]]


@pytest.fixture(params=CLIENTS)
def connect(request: pytest.FixtureRequest) -> Open:
    """Each of the two clients."""
    return CLIENTS[request.param]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that no one knows unless SSL_CERT_FILE names it."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("no_proxy", raising=False)


async def line_failure(connect: Open, url: str) -> LineLost:
    """Open a line that cannot be opened."""
    with pytest.raises(LineLost) as lost:
        await connect(url)
    return lost.value


async def rest_failure(url: str, patience_s: float = 5.0) -> RestError:
    """Send a request that cannot be answered."""
    timing = replace(QUICK, connect_timeout_s=patience_s, read_timeout_s=patience_s)
    http = open_http(url, None, now_ms=lambda: AT_MS, timing=timing)
    with pytest.raises(RestError) as failed:
        await http.send(RestRequest("get_server_time", is_signed=False))
    http.close()
    return failed.value


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (a_page("200 OK", "Server: portal"), r"HTTP 200 \(a web page, server portal\).*a log-in page of the network"),
        (
            a_page("302 Found", "Location: https://portal.example/login?token=s3cret"),
            r"HTTP 30\d.*redirects to .*log in",
        ),
        (a_page("307 Temporary Redirect", "Location: http://[portal"), "HTTP 30.*redirects to another page"),
        (a_page("403 Forbidden", "Server: nginx"), r"HTTP 403 \(a web page, server nginx\).*a filter of your network"),
        (a_page("403 Forbidden", "Server: CloudFront"), "Bybit's CDN refuses this IP address: a country"),
        (a_page("451 Unavailable For Legal Reasons"), "HTTP 451 .*legal reasons"),
        (a_page("401 Unauthorized", "WWW-Authenticate: Basic"), "HTTP 401 .*a log-in page of the network"),
        (
            a_page("404 Not Found", "Server: nginx"),
            r"HTTP 404 \(a web page, server nginx\).*no such path: correct BYBIT_",
        ),
        (a_page("511 Network Authentication Required"), "HTTP 511 .*the network requires a log-in"),
        (a_page("503 Service Unavailable", "Server: <ha;proxy>"), "HTTP 503 .*it is tried again"),
        (a_page("400 Bad Request"), r"HTTP 400 .*it may expect TLS: use (wss|https)://"),
    ],
    ids=lambda each: each[9:12].decode() if isinstance(each, bytes) else "",
)
async def test_answer_of_another_web_server_is_described(connect: Open, page: bytes, words: str) -> None:
    """A captive portal, a filter, a CDN and a broken server need different people."""
    async with foreign_server(page) as port:
        line = await line_failure(connect, f"ws://127.0.0.1:{port}/v5/public/linear")
        rest = await rest_failure(f"http://127.0.0.1:{port}")
    assert line.cause == "connect_rejected"
    for error in (line, rest):
        assert str(error).startswith(f"127.0.0.1:{port} answers HTTP ")
        assert not any(part in str(error) for part in ("<", "s3cret", "Welcome"))
    with pytest.raises(LineLost, match=words):
        raise line
    with pytest.raises(RestError, match=words):
        raise rest


def plain(answer: bytes | None) -> Callable[[Authority], AbstractAsyncContextManager[int]]:
    """A server without TLS."""
    return lambda _: foreign_server(answer)


def tls(
    host: str, answer: bytes | None = a_page("200 OK"), *, is_expired: bool = False
) -> Callable[[Authority], AbstractAsyncContextManager[int]]:
    """A server with TLS for this host."""
    return lambda authority: foreign_server(answer, authority.context(host, is_expired=is_expired))


OTHERS: dict[str, tuple[str, Callable[[Authority], AbstractAsyncContextManager[int]], bool, str, str]] = {
    "TLS to a plain port": (
        "s",
        plain(a_page("400 Bad Request")),
        True,
        "connect_tls",
        "answers, but not in TLS.*correct the port",
    ),
    "TLS to a port that closes": ("s", plain(b""), True, "connect_failed", "closes them in the TLS handshake"),
    "plain to a TLS port": (
        "",
        tls("127.0.0.1"),
        True,
        "connect_failed",
        "does not answer in HTTP.*if it expects TLS, use (wss|https)://",
    ),
    "plain to a port with a TLS alert": (
        "",
        plain(TLS_ALERT),
        True,
        "connect_failed",
        "does not answer in HTTP.*if it expects TLS",
    ),
    "SSH": ("", plain(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), True, "connect_failed", "another program listens there"),
    "certificate of no authority": (
        "s",
        tls("127.0.0.1"),
        False,
        "connect_tls",
        "no known authority has signed.*SSL_CERT_FILE",
    ),
    "certificate of another host": ("s", tls("portal.example"), True, "connect_tls", "certificate of another host"),
    "expired certificate": (
        "s",
        tls("127.0.0.1", is_expired=True),
        True,
        "connect_tls",
        "has expired.*this machine's clock",
    ),
    "page behind TLS": ("s", tls("127.0.0.1"), True, "connect_rejected", "HTTP 200 .*a log-in page"),
    "not HTTP behind TLS": ("s", tls("127.0.0.1", b"hello\r\n\r\n"), True, "connect_failed", "does not answer in HTTP"),
    "mute": ("", plain(None), True, "connect_timeout", "accepts connections, but does not answer .* in time"),
    "mute to TLS": ("s", plain(None), True, "connect_timeout", "does not answer in TLS in time"),
    "mute behind TLS": (
        "s",
        tls("127.0.0.1", None),
        True,
        "connect_timeout",
        "does not answer (HTTP|the request for a WebSocket)",
    ),
}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.proof] if "mute" in case else []) for case in OTHERS]
)
async def test_other_failure_is_described(
    connect: Open, authority: Authority, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """What answered, in which protocol, and whose certificate; never the words of a library."""
    secure, serve, is_known, cause, words = OTHERS[case]
    if is_known:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    patience_s = SHORT_S if "mute" in case else 5.0
    if case == "mute to TLS":
        monkeypatch.setattr(websockets_client, "TLS_TIMEOUT_S", SHORT_S / 2)
    async with serve(authority) as port:
        line = await line_failure(partial(connect, timeout_s=patience_s), f"ws{secure}://127.0.0.1:{port}/v5/private")
        rest = await rest_failure(f"http{secure}://127.0.0.1:{port}", patience_s)
    assert line.cause == cause
    for error, setting in ((line, "BYBIT_PRIVATE_WS_URL"), (rest, "BYBIT_REST_URL")):
        assert str(error).startswith(f"127.0.0.1:{port} ")
        assert setting in str(error)
        assert error.transient
    with pytest.raises(LineLost, match=words):
        raise line
    with pytest.raises(RestError, match=words):
        raise rest


@pytest.mark.parametrize(
    ("host", "cause", "words"),
    [
        ("127.0.0.1:1", "connect_refused", "127.0.0.1:1 refuses connections.*correct BYBIT_"),
        ("localhost:1", "connect_refused", "localhost:1 refuses connections"),
        ("bybit.invalid", "connect_unresolved", "the name bybit.invalid does not resolve .*DNS, or correct BYBIT_"),
        ("a..b", "connect_unresolved", "cannot be the name of a host; correct BYBIT_"),
        ("x" * 64 + ".com", "connect_unresolved", "cannot be the name of a host; correct BYBIT_"),
    ],
)
async def test_address_that_is_nowhere_is_described(connect: Open, host: str, cause: str, words: str) -> None:
    """A misspelt name, a host that is down, and a name that is none; none of them may end the process."""
    line = await line_failure(connect, f"ws://{host}/v5/public/spot")
    rest = await rest_failure(f"http://{host}")
    assert line.cause == cause
    with pytest.raises(LineLost, match=words):
        raise line
    with pytest.raises(RestError, match=words):
        raise rest


class _OddError(Exception):
    """An error of a library that no one has seen."""


@pytest.mark.parametrize(
    "error",
    [
        ImportError("python-socks"),
        ValueError("x"),
        _OddError(),
        RuntimeError(),
        KeyError("k"),
        ssl.SSLError(),
        OSError(),
    ],
)
async def test_any_exception_of_a_library_is_a_lost_line(
    connect: Open, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """It would end all lines of the process."""

    def fail(*_: object, **__: object) -> None:
        raise error

    for place in ("websockets.asyncio.client.get_proxy", "websockets.asyncio.client.ClientConnection.handshake"):
        monkeypatch.setattr(place, fail)
    monkeypatch.setattr("websocket._core.connect", fail)
    async with foreign_server(a_page("200 OK")) as port:
        lost = await line_failure(connect, f"ws://127.0.0.1:{port}/v5/public/spot")
    assert lost.cause.startswith("connect_")


def failures() -> Iterator[tuple[BaseException, str]]:
    """Errors of the libraries that no small server causes."""
    yield ExceptionGroup("several", [ConnectionRefusedError(111, "Connection refused")]), "connect_refused"
    yield (
        OSError("Multiple exceptions: [Errno 111] Connect call failed ('::1', 1), [Errno 111] Connect"),
        "connect_refused",
    )
    yield OSError("Multiple exceptions: [Errno 111] a, [Errno 101] b"), "connect_failed"
    yield OSError(101, "Network is unreachable"), "connect_failed"
    yield TimeoutError(110, "Connection timed out"), "connect_timeout"
    yield asyncio.IncompleteReadError(b"", 1), "connect_failed"
    yield UnicodeError("label too long"), "connect_unresolved"


@pytest.mark.parametrize(("error", "cause"), list(failures()), ids=lambda each: str(each)[:30])
def test_each_error_has_a_cause_of_the_fixed_set_and_names_the_address(error: BaseException, cause: str) -> None:
    """A group of errors is described by its first, not by its number of errors."""
    failure = Target("wss://stream.bybit.com/v5/public/spot", None).failure(error)
    assert failure.cause == cause
    assert "stream.bybit.com" in failure.text
    assert "ExceptionGroup" not in failure.text


def test_password_of_a_proxy_is_in_no_text() -> None:
    """The texts are logged, also where the library's are not."""
    proxy = Proxy("HTTPS_PROXY", "http", "p", 3128, "desk", "s3cret")
    for error, _ in failures():
        assert "s3cret" not in Target("https://api.bybit.com", proxy).failure(error).text


def test_private_address_is_named_by_its_setting(tmp_path: Path) -> None:
    """Each of the three addresses has its own setting."""
    for url, setting in (
        ("wss://h/v5/public/linear", "BYBIT_PUBLIC_WS_URL"),
        ("wss://h/v5/private", "BYBIT_PRIVATE_WS_URL"),
        ("https://h", "BYBIT_REST_URL"),
    ):
        assert setting in Target(url, None).failure(ConnectionRefusedError(111, "refused")).text


@pytest.mark.parametrize(
    "answer",
    [
        b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"retCode":0',
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
    ],
    ids=["cut off", "damaged"],
)
async def test_broken_answer_is_no_missing_http(answer: bytes) -> None:
    """The server is the right one; to correct the port would be the wrong action."""
    async with foreign_server(answer) as port:
        error = await rest_failure(f"http://127.0.0.1:{port}")
    with pytest.raises(RestUnavailable, match="answers in HTTP, but its answer is cut off or damaged"):
        raise error


@pytest.mark.parametrize("accept", [b"Sec-WebSocket-Accept: wrong\r\n", b""])
async def test_wrong_handshake_is_described_alike_by_both_clients(connect: Open, accept: bytes) -> None:
    """It answers in HTTP, but opens no WebSocket."""
    answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" + accept + b"\r\n"
    async with foreign_server(answer) as port:
        error = await line_failure(connect, f"ws://127.0.0.1:{port}/v5/public/linear")
    assert error.cause == "connect_rejected"
    assert str(error).startswith(f"127.0.0.1:{port} answers HTTP 101; expected a WebSocket")
