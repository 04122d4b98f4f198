"""The fast path for plain text frames beside the library's parser."""

import asyncio
import itertools
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from hedgelock_ingest.bybit.websockets_client import BatchingClient, take_text_frames

payloads = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"x" * 125, b"x" * 126, b"\x81" * 300, b"x" * 65_535, b"x" * 65_536]),
)


class _Wire(asyncio.Transport):
    """Accepts and drops what a client sends."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def write(self, data: Any) -> None:
        pass

    def is_closing(self) -> bool:
        return False


def a_frame(payload: bytes, opcode: Opcode = Opcode.TEXT, *, fin: bool = True) -> bytes:
    """Encode a frame as a server sends it."""
    return Frame(opcode, payload, fin).serialize(mask=False)


def handshake_answer(request: Request) -> bytes:
    """Return a server's answer that accepts a handshake."""
    return ServerProtocol().accept(request).serialize()


@st.composite
def conversations(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """Draw a stream of bytes with frames of all kinds, and the messages in it."""
    stream, messages = b"", []
    for kind in draw(st.lists(st.sampled_from(["text", "binary", "ping", "fragments"]), max_size=12)):
        payload = draw(payloads)
        match kind:
            case "text":
                stream += a_frame(payload)
            case "binary":
                stream += a_frame(payload, Opcode.BINARY)
            case "ping":
                stream += a_frame(payload[:100], Opcode.PING)
                continue
            case "fragments":
                cut = draw(st.integers(0, len(payload)))
                stream += a_frame(payload[:cut], fin=False) + a_frame(b"", Opcode.PING)
                stream += a_frame(payload[cut:], Opcode.CONT)
        messages.append(payload)
    return stream, messages


@settings(max_examples=200, deadline=None)
@given(conversation=conversations(), cuts=st.lists(st.floats(0, 1), max_size=12))
def test_any_split_of_the_bytes_gives_the_same_frames(
    conversation: tuple[bytes, list[bytes]], cuts: list[float]
) -> None:
    """The network may split bytes anywhere: in a header, in a fragment, before and after a ping."""
    frames, messages = conversation

    async def read_all() -> list[bytes]:
        protocol = ClientProtocol(parse_uri("ws://exchange/"))
        client = BatchingClient(protocol, ping_interval=None)
        client.connection_made(_Wire())
        request = protocol.connect()
        protocol.send_request(request)
        received: list[bytes] = []
        client.deliver(lambda frames, _: received.extend(frames))
        stream = handshake_answer(request) + frames
        bounds = sorted({0, len(stream), *(int(cut * len(stream)) for cut in cuts)})
        for begin, end in itertools.pairwise(bounds):
            client.data_received(stream[begin:end])
        assert protocol.state is State.OPEN
        return received

    assert asyncio.run(read_all()) == messages


def test_taking_stops_at_the_first_frame_that_is_not_plain() -> None:
    """Other frames are left to the library: control frames, fragments, extensions, masks, long frames."""
    plain = a_frame(b"plain")
    others = [
        a_frame(b"", Opcode.PING),
        a_frame(b"part", fin=False),
        b"\xc1\x01x",
        b"\x81\x81\x00\x00\x00\x00x",
        a_frame(b"x" * 65_536),
        plain[:-1],
        plain[:1],
    ]
    for other in others:
        taken: list[bytes] = []

        assert take_text_frames(plain + plain + other, 0, taken) == 2 * len(plain)
        assert taken == [b"plain", b"plain"]
