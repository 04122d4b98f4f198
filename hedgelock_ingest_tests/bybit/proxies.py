"""Small real proxies on this machine: HTTP with CONNECT, and SOCKS5; whatever name is asked for is at one port here."""

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

USER, PASSWORD = "desk", "p@ss word"

type _Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
type _Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class RunningProxy:
    """A proxy, and what clients requested of it."""

    scheme: str
    port: int = 0
    targets: list[str] = field(default_factory=list)
    credentials: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Its address, as a variable of the environment holds it."""
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def url_with(self, user: str, password: str) -> str:
        """Its address with credentials, percent-encoded already."""
        return f"{self.scheme}://{user}:{password}@127.0.0.1:{self.port}"


@asynccontextmanager
async def http_proxy(
    *, status: int = 200, requires_log_in: bool = False, tls: ssl.SSLContext | None = None
) -> AsyncIterator[RunningProxy]:
    """Run an HTTP proxy that answers each request so, or with 407 without the right credentials; maybe with TLS."""
    proxy = RunningProxy("https" if tls else "http")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, target, _ = head.split("\r\n", 1)[0].split(" ")
        proxy.targets.append(target)
        sent = [
            line.partition(": ")[2] for line in head.split("\r\n") if line.lower().startswith("proxy-authorization")
        ]
        proxy.credentials += sent
        # The Basic form of desk:p@ss word.
        answer = 407 if requires_log_in and sent != ["Basic ZGVzazpwQHNzIHdvcmQ="] else status
        if answer != 200:
            writer.write(b"HTTP/1.1 %d Refused\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % answer)
            return
        if method == "CONNECT":
            port = int(target.rpartition(":")[2])
            there = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            address, path = target.removeprefix("http://").split("/", 1)
            there = await asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2]))
            there[1].write(head.replace(target, f"/{path}", 1).encode())
        await _join((reader, writer), there)

    async with _serving(proxy, serve, tls):
        yield proxy


@asynccontextmanager
async def socks_proxy(
    scheme: str = "socks5h", *, reply: int = 0, requires_log_in: bool = False
) -> AsyncIterator[RunningProxy]:
    """Run a SOCKS5 proxy (RFC 1928, 1929) with this reply to each request."""
    proxy = RunningProxy(scheme)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        method = 2 if requires_log_in else 0
        writer.write(bytes([5, method if method in methods else 255]))
        if method not in methods:
            return
        if requires_log_in:
            _, length = await reader.readexactly(2)
            user = (await reader.readexactly(length)).decode()
            password = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
            proxy.credentials.append(f"{user}:{password}")
            is_right = (user, password) == (USER, PASSWORD)
            writer.write(bytes([1, int(not is_right)]))
            if not is_right:
                return
        _, _, _, kind = await reader.readexactly(4)
        size = {1: 4, 4: 16}.get(kind) or (await reader.readexactly(1))[0]
        host = (await reader.readexactly(size)).decode() if kind == 3 else f"address of {size} bytes"
        (port,) = struct.unpack(">H", await reader.readexactly(2))
        proxy.targets.append(f"{host}:{port}")
        writer.write(bytes([5, reply, 0, 1, 0, 0, 0, 0, 0, 0]))
        if reply == 0:
            await _join((reader, writer), await asyncio.open_connection("127.0.0.1", port))

    async with _serving(proxy, serve):
        yield proxy


@asynccontextmanager
async def mute_proxy(scheme: str) -> AsyncIterator[RunningProxy]:
    """Run a proxy that accepts connections and never answers."""
    proxy = RunningProxy(scheme)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with _serving(proxy, serve):
        yield proxy


@asynccontextmanager
async def _serving(proxy: RunningProxy, serve: _Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[None]:
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await serve(reader, writer)
                await writer.drain()
        finally:
            writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _join(here: _Stream, there: _Stream) -> None:
    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    await asyncio.gather(copy(here[0], there[1]), copy(there[0], here[1]))
