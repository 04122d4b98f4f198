"""
A connection to one broker: every address of its host is tried, and each failure keeps how far it came.

It replaces `connect` of aiokafka's connection, and depends on the attributes that `connect` sets there.
"""

import asyncio
import socket
import struct
import weakref
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from io import BytesIO
from typing import Any

from aiokafka.conn import READER_LIMIT, AIOKafkaConnection, AIOKafkaProtocol
from aiokafka.protocol.admin import ApiVersionRequest

from hedgelock_ingest.kafka.connection_failures import Attempt, NotKafka, Phase

STAGGER_S = 0.25
"""The head start of one address before the next is tried beside it. Source: RFC 8305, "Connection Attempt Delay"."""
_TLS_SHUTDOWN_TIMEOUT_S = 1.0
"""How long a closed connection waits for the end of TLS, of which a frozen broker knows nothing; 30 s by default."""
_LENGTH = struct.Struct(">i")
_MAX_VERSIONS_BYTES = 64 * 1024


class BrokerConnection(AIOKafkaConnection):  # type: ignore[misc]  # aiokafka has no types
    """A connection to one address of a broker; `attempt` records its phase."""

    def __init__(self, attempt: Attempt, ip: str, **options: Any) -> None:
        """Prepare; `options` are those of aiokafka's connection."""
        super().__init__(attempt.host, attempt.port, **options)
        self.attempt = attempt
        self._ip = ip

    async def connect(self) -> None:
        """
        Connect, ask for the versions of the protocol, and log in; the caller bounds the time.

        Raises:
            NotKafka: Another protocol is spoken there.
            OSError, EOFError, aiokafka.errors.KafkaError: As the attempt's phase explains.
        """
        loop, attempt = asyncio.get_running_loop(), self.attempt
        self._closed_fut = loop.create_future()
        reader = asyncio.StreamReader(limit=READER_LIMIT, loop=loop)
        protocol = AIOKafkaProtocol(self._closed_fut, reader, loop=loop)
        attempt.reach(Phase.CONNECT)
        connected = await _connected_socket(self._ip, self._port)
        attempt.reach(Phase.TLS if self._ssl_context else Phase.VERSIONS)
        try:
            transport, _ = await loop.create_connection(
                lambda: protocol,
                sock=connected,
                ssl=self._ssl_context,
                server_hostname=self._host if self._ssl_context else None,
                ssl_shutdown_timeout=_TLS_SHUTDOWN_TIMEOUT_S if self._ssl_context else None,
            )
        except BaseException:
            connected.close()
            raise
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        attempt.reach(Phase.VERSIONS)
        try:
            self._versions = await _versions(reader, writer, self._client_id)
        except BaseException:
            transport.abort()
            raise
        self._reader, self._writer, self._protocol = reader, writer, protocol
        self._read_task = self._create_reader_task()
        if self._max_idle_ms is not None:
            self._idle_handle = loop.call_soon(self._idle_check, weakref.ref(self))
        if self._security_protocol.startswith("SASL"):
            attempt.reach(Phase.LOGIN)
            try:
                await self._do_sasl_handshake()
            except BaseException:
                self.close()
                raise


async def connect_to(attempt: Attempt, **options: Any) -> BrokerConnection:
    """
    Connect to the address of a host that answers first; the addresses are tried `STAGGER_S` after each other.

    Raises the error of the address that came furthest, as `BrokerConnection.connect`.
    """
    found = await asyncio.get_running_loop().getaddrinfo(attempt.host, attempt.port, type=socket.SOCK_STREAM)
    ips = list(dict.fromkeys(str(address[0]) for *_, address in found))
    attempts = [Attempt(attempt.host, attempt.port, attempt) for _ in ips]

    async def connect(number: int) -> BrokerConnection:
        connection = BrokerConnection(attempts[number], ips[number], **options)
        try:
            await connection.connect()
        except Exception as error:
            attempts[number].error = error
            raise
        return connection

    try:
        steps = [partial(connect, number) for number in range(len(ips))]
        return await first_success(steps, stagger_s=STAGGER_S, discard=BrokerConnection.close)
    except Exception:  # noqa: BLE001  # it is one of the errors of the addresses
        furthest = max(attempts, key=lambda each: each.phase.value)
        assert furthest.error is not None
        raise furthest.error from None


async def first_success[T](
    steps: Sequence[Callable[[], Awaitable[T]]], *, stagger_s: float, discard: Callable[[T], object]
) -> T:
    """
    Return the first result, and cancel the other steps; each begins `stagger_s` after the one before, or when it fails.

    Args:
        steps: At least one.
        stagger_s: Seconds.
        discard: Called with every further result.

    Raises:
        Exception: All have failed; the error of the last one.
    """
    waiting, running = list(steps), set[asyncio.Future[T]]()
    error: BaseException | None = None
    try:
        while waiting or running:
            if waiting:
                running.add(asyncio.ensure_future(waiting.pop(0)()))
            ended, running = await asyncio.wait(
                running, timeout=stagger_s if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for each in ended:
                error = each.exception()
                if error is None:
                    running |= ended - {each}
                    return each.result()
    finally:
        await _end(running, discard)
    assert error is not None
    raise error


async def _end[T](running: Collection[asyncio.Future[T]], discard: Callable[[T], object]) -> None:
    for each in running:
        each.cancel()
    for result in await asyncio.gather(*running, return_exceptions=True):
        if not isinstance(result, BaseException):
            discard(result)


async def _connected_socket(ip: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    connecting = socket.socket(family, socket.SOCK_STREAM)
    try:
        connecting.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connecting, (ip, port))
    except BaseException:
        connecting.close()
        raise
    return connecting


async def _versions(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client_id: str
) -> dict[int, tuple[int, int]]:
    """Ask which requests the broker supports; this first answer also shows whether it is a Kafka broker."""
    request = ApiVersionRequest().prepare({})
    message = request.build_request_header(correlation_id=0, client_id=client_id).encode() + request.encode()
    writer.write(_LENGTH.pack(len(message)) + message)
    head = await reader.readexactly(_LENGTH.size)
    (length,) = _LENGTH.unpack(head)
    if not _LENGTH.size <= length <= _MAX_VERSIONS_BYTES:
        raise NotKafka(head)
    content = BytesIO(await reader.readexactly(length))
    try:
        request.parse_response_header(content)
        answer = request.RESPONSE_TYPE.decode(content)
    except Exception as error:
        raise NotKafka(head) from error
    return {key: (lowest, highest) for key, lowest, highest in answer.api_versions}
