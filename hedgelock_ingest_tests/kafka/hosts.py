"""Hosts that are no Kafka broker, or none that answers: what a bootstrap list may name by mistake."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from io import BytesIO

from aiokafka.protocol.metadata import MetadataResponse_v5
from aiokafka.protocol.types import Int32

from hedgelock_ingest.kafka.topic_metadata import TopicsResponse

OWN = "own address"
_METADATA = 3
_RESPONSES = {5: MetadataResponse_v5, 8: TopicsResponse}


@asynccontextmanager
async def answering(answer: bytes | None, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Listen, and send `answer` to the first bytes of each connection, then close; None never answers."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(1_000):
                if answer is not None:
                    writer.write(answer)
                    await writer.drain()
                    return
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield "{}:{}".format(*server.sockets[0].getsockname())
    finally:
        server.close()


@asynccontextmanager
async def resetting() -> AsyncIterator[str]:
    """Listen, and reset each connection."""

    async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    server = await asyncio.start_server(reset, "127.0.0.1", 0)
    try:
        yield "{}:{}".format(*server.sockets[0].getsockname())
    finally:
        server.close()


@contextmanager
def black_hole(ip: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Listen with a full backlog: the system drops further connections, as a firewall does."""
    with socket.create_server((ip, port), backlog=0) as listener:
        waiting = []
        for _ in range(3):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(listener.getsockname()[:2])
            waiting.append(one)
        try:
            yield "{}:{}".format(*listener.getsockname())
        finally:
            for one in waiting:
                one.close()


@asynccontextmanager
async def advertising(broker: str, *advertised: str) -> AsyncIterator[str]:
    """Pass connections on to a broker, and name brokers 1, 2, … at other addresses; `OWN` is the one yielded here."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = broker.rpartition(":")
        to_reader, to_writer = await asyncio.open_connection(host, int(port))
        versions: dict[bytes, int] = {}
        addresses = [address() if each == OWN else each for each in advertised]
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_pass_requests(reader, to_writer, versions))
                tasks.create_task(_pass_answers(to_reader, writer, versions, addresses))
        except* (OSError, EOFError):
            pass
        finally:
            writer.close()
            to_writer.close()

    def address() -> str:
        return "{}:{}".format(*server.sockets[0].getsockname())

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield address()
    finally:
        server.close()


async def _pass_requests(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, versions: dict[bytes, int]
) -> None:
    while True:
        request = await _frame(reader)
        if int.from_bytes(request[:2]) == _METADATA:
            versions[request[4:8]] = int.from_bytes(request[2:4])
        writer.write(Int32.encode(len(request)) + request)


async def _pass_answers(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, versions: dict[bytes, int], addresses: list[str]
) -> None:
    while True:
        answer = await _frame(reader)
        version = versions.pop(answer[:4], None)
        if version is not None:
            metadata = _RESPONSES[version].decode(BytesIO(answer[4:]))
            metadata.brokers = [(number, *_split(each), None) for number, each in enumerate(addresses, start=1)]
            answer = answer[:4] + metadata.encode()
        writer.write(Int32.encode(len(answer)) + answer)


async def _frame(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(4)))


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)
