"""Lines and REST through real proxies, to an exchange whose name only the proxy resolves."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from hedgelock_ingest.bybit import pybit_client, websockets_client
from hedgelock_ingest.bybit.rest_http import open_http
from hedgelock_ingest.bybit.rest_port import RestRequest, RestTiming
from hedgelock_ingest.bybit.socket_port import WebSocket
from hedgelock_ingest.errors import LineLost, RestUnavailable
from hedgelock_ingest_tests.builders import AT_MS
from hedgelock_ingest_tests.bybit.foreign_servers import Authority, foreign_server
from hedgelock_ingest_tests.bybit.proxies import RunningProxy, http_proxy, mute_proxy, socks_proxy
from hedgelock_ingest_tests.bybit.recording_receiver import eventually
from hedgelock_ingest_tests.bybit.rest import QUICK
from hedgelock_ingest_tests.bybit.scripted_server import ScriptedServer, scripted_server
from hedgelock_ingest_tests.sandbox.exchange_fixtures import running_exchange

CLIENTS = {"websockets": websockets_client.open_connection, "pybit": pybit_client.open_connection}
RIGHT = "desk:p%40ss%20word"


type Open = Callable[..., Awaitable[WebSocket]]

TIME_MS = 1_776_149_990_532
_BODY = b'{"retCode":0,"retMsg":"OK","result":{},"time":%d}' % TIME_MS
TIME = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
"""Bybit's answer to a request for its time."""

SHORT_S = 0.1
"""Patience with what never answers."""


@pytest.fixture(params=CLIENTS)
def connect(request: pytest.FixtureRequest) -> Open:
    """Each of the two clients."""
    return CLIENTS[request.param]


@pytest.fixture(autouse=True)
def _no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    """A server of lines, by a name that is not resolved here."""
    async with scripted_server() as running:
        running.url = running.url.replace("127.0.0.1", "exchange.invalid")
        yield running


async def expect_pong(connect: Open, url: str) -> None:
    """Open a line, and have a ping answered on it."""
    received: list[bytes] = []
    connection = await connect(url)
    connection.deliver(lambda frames, _: received.extend(frames))
    await connection.send('{"req_id":"1","op":"ping"}')
    await eventually(lambda: received)
    await connection.close(1.0)


async def request_time(url: str, timing: RestTiming = QUICK) -> int:
    """Request the exchange's time by REST."""
    http = open_http(url, None, now_ms=lambda: AT_MS, timing=timing)
    try:
        return (await http.send(RestRequest("get_server_time", is_signed=False))).time_ms
    finally:
        http.close()


def proxies_with(requires_log_in: bool) -> list[AbstractAsyncContextManager[RunningProxy]]:
    """One proxy of each kind."""
    return [http_proxy(requires_log_in=requires_log_in), socks_proxy(requires_log_in=requires_log_in)]


@pytest.mark.parametrize("requires_log_in", [False, True])
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "all_proxy"])
async def test_line_opens_through_a_proxy(
    connect: Open, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, variable: str, requires_log_in: bool
) -> None:
    """Companies let nothing out otherwise; the proxy resolves the name."""
    for opened in proxies_with(requires_log_in):
        async with opened as proxy:
            scheme, _, address = proxy.url.partition("://")
            monkeypatch.setenv(variable, f"{scheme}://{RIGHT}@{address}" if requires_log_in else proxy.url)
            await expect_pong(connect, server.url)
        assert proxy.targets == [server.url.removeprefix("ws://").partition("/")[0]]
        assert len(proxy.credentials) == int(requires_log_in)


@pytest.mark.parametrize("requires_log_in", [False, True])
async def test_rest_is_answered_through_a_proxy(monkeypatch: pytest.MonkeyPatch, requires_log_in: bool) -> None:
    """REST goes the way of the lines."""
    async with running_exchange() as exchange:
        for opened in proxies_with(requires_log_in):
            async with opened as proxy:
                scheme, _, address = proxy.url.partition("://")
                monkeypatch.setenv("ALL_PROXY", f"{scheme}://{RIGHT}@{address}" if requires_log_in else proxy.url)
                assert await request_time(exchange.rest_url.replace("127.0.0.1", "exchange.invalid")) > AT_MS
            assert "exchange.invalid" in proxy.targets[0]
            assert len(proxy.credentials) == int(requires_log_in)


async def test_tls_is_to_the_exchange_and_not_to_the_proxy(
    connect: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Real addresses have TLS: the certificate is that of the exchange, known to REST and lines by one file."""
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    context = authority.context("exchange.invalid")
    async with scripted_server(tls=context) as server, foreign_server(TIME, context) as rest_port:
        for opened in proxies_with(requires_log_in=False):
            async with opened as proxy:
                monkeypatch.setenv("HTTPS_PROXY", proxy.url)
                await expect_pong(connect, server.url.replace("127.0.0.1", "exchange.invalid"))
                assert await request_time(f"https://exchange.invalid:{rest_port}") == TIME_MS
            assert len(proxy.targets) == 2


async def test_proxy_with_tls_carries_lines_and_rest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """TLS to the exchange is inside of TLS to the proxy; pybit, which cannot, is refused at the start."""
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    context = authority.context("exchange.invalid")
    async with (
        scripted_server(tls=context) as server,
        foreign_server(TIME, context) as rest_port,
        http_proxy(tls=authority.context("127.0.0.1")) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        await expect_pong(websockets_client.open_connection, server.url.replace("127.0.0.1", "exchange.invalid"))
        assert await request_time(f"https://exchange.invalid:{rest_port}") == TIME_MS
        assert len(proxy.targets) == 2
        monkeypatch.setenv("SSL_CERT_FILE", "")
        with pytest.raises(LineLost, match=r"no known authority has signed through the proxy 127"):
            await websockets_client.open_connection("wss://exchange.invalid:1/v5/private")


async def test_this_machine_and_exempt_hosts_are_reached_directly(
    connect: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A simulated exchange on this machine is not behind a company's proxy."""
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with scripted_server() as server, running_exchange() as exchange:
        await expect_pong(connect, server.url)
        assert await request_time(exchange.rest_url) > AT_MS
        with pytest.raises(LineLost) as lost:
            await connect(server.url.replace("127.0.0.1", "exchange.invalid"))
        assert lost.value.cause == "connect_proxy"
        monkeypatch.setenv("NO_PROXY", "exchange.invalid")
        with pytest.raises(LineLost) as lost:
            await connect(server.url.replace("127.0.0.1", "exchange.invalid"))
        assert lost.value.cause == "connect_unresolved"


FAILURES = {
    "http refuses": (partial(http_proxy, status=403), "", r"answers HTTP 403 to CONNECT .*allow exchange\.invalid"),
    "http wants a log-in": (partial(http_proxy, requires_log_in=True), "", "requires a user and a password: add them"),
    "http refuses a log-in": (
        partial(http_proxy, requires_log_in=True),
        "desk:s3cret@",
        "correct the user and the pass",
    ),
    "http is mute": (partial(mute_proxy, "http"), "", "in time"),
    "socks refuses": (partial(socks_proxy, reply=2), "", "opens no connection to exchange.invalid"),
    "socks cannot reach it": (partial(socks_proxy, reply=5), "", "opens no connection to exchange.invalid"),
    "socks wants a log-in": (
        partial(socks_proxy, requires_log_in=True),
        "",
        "requires a user and a password: add them",
    ),
    "socks refuses a log-in": (
        partial(socks_proxy, requires_log_in=True),
        "desk:s3cret@",
        "correct the user and the pass",
    ),
    "socks is mute": (partial(mute_proxy, "socks5h"), "", "in time"),
    "socks speaks HTTP": (partial(http_proxy), "", "in time"),
}


@pytest.mark.parametrize("case", FAILURES)
async def test_proxy_that_fails_is_named_and_not_bybit(
    connect: Open, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """The operator learns which of the two to ask; lines and REST alike, never with the password."""
    opened, credentials, words = FAILURES[case]
    timing = QUICK
    if words == "in time":
        connect = partial(connect, timeout_s=SHORT_S)
        timing = replace(QUICK, connect_timeout_s=SHORT_S, read_timeout_s=SHORT_S)
    async with opened() as proxy:
        scheme = "socks5h" if case.startswith("socks") else "http"
        monkeypatch.setenv("ALL_PROXY", f"{scheme}://{credentials}127.0.0.1:{proxy.port}")
        with pytest.raises(LineLost) as lost:
            await connect(server.url)
        with pytest.raises(RestUnavailable) as unavailable:
            await request_time(server.url.replace("ws://", "https://").partition("/v5")[0], timing)
    assert lost.value.cause == "connect_proxy"
    for text in (str(lost.value), str(unavailable.value)):
        assert f"the proxy 127.0.0.1:{proxy.port} (ALL_PROXY)" in text
        assert "s3cret" not in text
    for error in (lost, unavailable):
        error.match(words)


@pytest.mark.parametrize("scheme", ["http", "socks5h", "socks5", "socks4a"])
async def test_proxy_that_is_not_there_is_named(
    connect: Open, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """It is the most common failure of one."""
    monkeypatch.setenv("HTTP_PROXY", f"{scheme}://127.0.0.1:1")
    url = server.url.replace("exchange.invalid", "192.0.2.1")
    with pytest.raises(LineLost, match=r"the proxy 127.0.0.1:1 \(HTTP_PROXY\) cannot be reached"):
        await connect(url)
    with pytest.raises(RestUnavailable, match=r"the proxy 127.0.0.1:1 \(HTTP_PROXY\) cannot be reached"):
        await request_time(url.replace("ws://", "http://").partition("/v5")[0])
