"""Servers that are not Bybit: web pages, other protocols, mute ports, and TLS with certificates of any kind."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import trustme

PAGE = b"<html><body>Welcome</body></html>"


def a_page(status: str, *headers: str) -> bytes:
    """Write an HTTP answer with a web page."""
    lines = [
        f"HTTP/1.1 {status}",
        "Content-Type: text/html",
        f"Content-Length: {len(PAGE)}",
        "Connection: close",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + PAGE


@asynccontextmanager
async def foreign_server(answer: bytes | None, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Answer the first bytes of each client so and close; None never answers. Yields the port."""

    clients: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clients.add(writer)
        with suppress(OSError, asyncio.CancelledError):
            await reader.read(65_536)
            if answer is None:
                await reader.read()
            else:
                writer.write(answer)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for client in clients:
            client.transport.abort()


class Authority:
    """A certificate authority, and servers' contexts with its certificates."""

    def __init__(self, folder: Path) -> None:
        """Create the authority, and write its certificate into a file."""
        self._authority = trustme.CA()
        self.file = folder / "authority.pem"
        self._authority.cert_pem.write_to_path(self.file)

    def context(self, host: str, *, is_expired: bool = False) -> ssl.SSLContext:
        """Return the context of a server with a certificate for this host."""
        began, ended = datetime(2001, 1, 1, tzinfo=UTC), datetime(2001, 1, 2, tzinfo=UTC)
        issue = self._authority.issue_cert
        certificate = issue(host, not_before=began, not_after=ended) if is_expired else issue(host)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        return context
