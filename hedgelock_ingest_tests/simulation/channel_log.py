"""Log of each channel: the events, the sockets they were written to, and the frames that a faultless client reads."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from hedgelock_ingest_tests.processes.evidence import Sent, StreamConnection
from hedgelock_ingest_tests.processes.reference_client import Channel
from hedgelock_ingest_tests.simulation.market import Stream, Written
from hedgelock_ingest_tests.simulation.sockets import Socket

_decode: Callable[[bytes], dict[str, Any]] = msgspec.json.Decoder(dict[str, Any]).decode


@dataclass(slots=True)
class Event:
    """One frame for all subscribers of a channel, and the sockets that it was written to."""

    sent_ms: int
    identities: list[Any]
    sockets: list[Socket]


@dataclass(slots=True)
class ChannelLog:
    """
    One channel: its subscribers, the time of the first subscription, and every event.

    `stream` is None for a private one.
    """

    channel: Channel
    stream: Stream | None = None
    subscribers: list[Socket] = field(default_factory=list)
    since_ms: int | None = None
    events: list[Event] = field(default_factory=list)
    raws: list[bytes] = field(default_factory=list)
    _decoded: list[dict[str, Any]] = field(default_factory=list)

    def write(self, written: Written, now_ms: int) -> list[Socket]:
        """Write an event to all subscribers; return the sockets that have something to send now."""
        raw, identities = written
        name = self.channel[1]
        sockets: list[Socket] = []
        for socket in self.subscribers:
            if not socket.takes_data:
                continue  # half open, silent or closed
            if name in socket.skips and b'"type":"snapshot"' not in raw:
                socket.skips.discard(name)
                continue
            socket.pending.append(raw)
            if name in socket.doubles:
                socket.doubles.discard(name)
                socket.pending.append(raw)
            sockets.append(socket)
        self.events.append(Event(now_ms, identities, sockets))
        self.raws.append(raw)
        return sockets

    def frames(self) -> list[dict[str, Any]]:
        """Return the decoded frames that a faultless client has read."""
        self._decoded += [_decode(raw) for raw in self.raws[len(self._decoded) :]]
        return self._decoded

    def sent(self, connections: "Connections") -> list[Sent]:
        """Return the events as a proof needs them."""
        return [
            Sent(number, event.sent_ms, event.identities, connections.of(event.sockets))
            for number, event in enumerate(self.events)
        ]


class Connections:
    """Converts sockets to a proof's connections, each once."""

    def __init__(self) -> None:
        self._known: dict[Socket, StreamConnection] = {}

    def of(self, sockets: Iterable[Socket]) -> list[StreamConnection]:
        """Return the connections of some sockets."""
        known = self._known
        for socket in sockets:
            if socket not in known:
                known[socket] = StreamConnection(socket.connection_id, socket.opened_ms, socket.closed_ms)
        return [known[socket] for socket in sockets]


@dataclass(slots=True)
class Malformed:
    """A malformed frame; `has_arrived` is set when a running process has read it."""

    raw: bytes
    sent_ms: int
    socket: Socket
    has_arrived: bool = False


_MALFORMED = (
    b'{"topic":"weather.BTCUSDT","type":"snapshot","ts":1715748762000,"data":{"s":"BTCUSDT"}}',
    b"\x00\x01not a frame",
    b'{"topic":"\xff\xfe"}',
    b"[1,2,3]",
    b"{}",
    b'{"topic":"orderbook.50.BTCUSDT","type":"delta","ts":"soon","data":{"s":7,"b":"none","a":null,"u":"12"}}',
)


def malformed_frame(model: bytes, number: int) -> bytes:
    """
    Return a malformed frame; the same number gives the same kind.

    Args:
        model: A valid frame, which may be truncated.
        number: Any integer.
    """
    kind = number % (len(_MALFORMED) + 1)
    raw = model[: len(model) * 2 // 3] if kind == len(_MALFORMED) else _MALFORMED[kind]
    return bytes(bytearray(raw))  # a new object, whose identity is recognised on arrival


def numbered_id(kind: str, number: int) -> str:
    """Return a connection's id: a UUID on a public socket, Bybit's short form on a private one."""
    digits = f"{number:012x}"
    return f"sim{digits}-{digits[-5:]}" if kind == "private" else f"00000000-0000-4000-8000-{digits}"
