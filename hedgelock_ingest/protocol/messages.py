"""
Bybit's WebSocket messages, decoded strictly where they carry state and leniently where they describe.

`decode` turns the bytes of one frame into one of the message types below, or raises `FrameError`, whose text states
what is wrong and contains no value. Unknown fields are ignored. A decoded message is safe to apply: a frame that is
wrong in any field that we use is refused as a whole, before it can change any state.

Source: Bybit V5, WebSocket Stream, Public (Orderbook, Ticker, Trade, All Liquidation) and Connect.
"""

import re
from functools import lru_cache
from typing import Annotated, Literal

import msgspec

from hedgelock_ingest.errors import FrameError
from hedgelock_ingest.protocol.private_messages import DECODERS as PRIVATE_DECODERS
from hedgelock_ingest.protocol.private_messages import PrivateMessage
from hedgelock_ingest.protocol.ticker_fields import LAST_MS, check_ticker

DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for foreign bytes: the last two for invalid UTF-8, and for deep nesting."""

Digits = Annotated[str, msgspec.Meta(pattern=r"^-?[0-9]+(?:\.[0-9]+)?\Z")]
"""A decimal number as Bybit writes it; kept as text, so not one digit changes."""
ExchangeMs = Annotated[int, msgspec.Meta(ge=0, le=LAST_MS)]
UpdateId = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Sequence = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class Control(msgspec.Struct, frozen=True, gc=False):
    """An answer about the connection: acknowledgement, rejection, pong, authentication."""

    op: str | None = None
    success: bool | None = None
    ret_msg: str | None = None
    req_id: str | int | None = None
    conn_id: str | None = None

    @property
    def is_pong(self) -> bool:
        """Public pongs carry `op: "ping"`, private ones `op: "pong"` (Connect, "How to Send the Heartbeat Packet")."""
        return self.op == "pong" or self.ret_msg == "pong"


class _WithTopic(Control, frozen=True, gc=False):
    topic: str | None = None


class _BookData(msgspec.Struct, frozen=True, gc=False):
    s: str
    u: UpdateId
    seq: Sequence
    b: msgspec.Raw
    a: msgspec.Raw


class BookMessage(msgspec.Struct, frozen=True, gc=False):
    """A snapshot or a delta of an order book; the sides stay JSON text, checked to be `[["price","size"], …]`."""

    topic: str
    type: Literal["snapshot", "delta"]
    ts: ExchangeMs
    data: _BookData
    cts: ExchangeMs | None = None


class TickerMessage(msgspec.Struct, frozen=True, gc=False):
    """A ticker; a field that is absent from a delta is unchanged."""

    topic: str
    type: Literal["snapshot", "delta"]
    ts: ExchangeMs
    data: dict[str, object]
    cs: Sequence | None = None


class TradeRow(msgspec.Struct, frozen=True, gc=False):
    """One trade; `S` is the taker's side, `v` the size and `p` the price, both checked to be decimal numbers."""

    T: ExchangeMs
    s: str
    S: Literal["Buy", "Sell"]
    v: str
    p: str
    i: Annotated[str, msgspec.Meta(min_length=1)]
    L: str | None = None
    BT: bool | None = None
    RPI: bool | None = None
    seq: Sequence | None = None


class TradesMessage(msgspec.Struct, frozen=True, gc=False):
    """Up to 1,024 trades, oldest first."""

    topic: str
    ts: ExchangeMs
    data: Annotated[tuple[TradeRow, ...], msgspec.Meta(min_length=1)]


class LiquidationRow(msgspec.Struct, frozen=True, gc=False):
    """One liquidation; `S` is the side of the position, `p` the bankruptcy price."""

    T: ExchangeMs
    s: str
    S: Literal["Buy", "Sell"]
    v: Digits
    p: Digits


class LiquidationsMessage(msgspec.Struct, frozen=True, gc=False):
    """The liquidations of half a second."""

    topic: str
    ts: ExchangeMs
    data: Annotated[tuple[LiquidationRow, ...], msgspec.Meta(min_length=1)]


type PublicMessage = BookMessage | TickerMessage | TradesMessage | LiquidationsMessage
type DataMessage = PublicMessage | PrivateMessage
type Message = DataMessage | Control

_envelope = msgspec.json.Decoder(_WithTopic)
_decoder_by_feed: dict[str, msgspec.json.Decoder[DataMessage]] = {
    "orderbook": msgspec.json.Decoder(BookMessage),
    "tickers": msgspec.json.Decoder(TickerMessage),
    "publicTrade": msgspec.json.Decoder(TradesMessage),
    "allLiquidation": msgspec.json.Decoder(LiquidationsMessage),
    **PRIVATE_DECODERS,
}
_START_BYTES = len('{"topic":"orderb')  # enough to distinguish them from the private topic "order"
_decoder_by_start = {
    f'{{"topic":"{feed}'.encode()[:_START_BYTES]: _decoder_by_feed[feed]
    for feed in ("orderbook", "tickers", "publicTrade", "allLiquidation")
}
_levels = msgspec.json.Decoder(list[tuple[Digits, Digits]])

# The usual form, without white space, is matched in one pass, so that no objects are created only to check levels.
_USUAL_LEVEL = r'\["[0-9]++(?:\.[0-9]++)?+","[0-9]++(?:\.[0-9]++)?+"\]'
_is_usual_side = re.compile(rf"\[(?:{_USUAL_LEVEL}(?:,{_USUAL_LEVEL})*+)?+\]".encode()).fullmatch
_NUMBER = r"-?[0-9]++(?:\.[0-9]++)?+"
_is_number = re.compile(_NUMBER).fullmatch
_are_two_numbers = re.compile(rf"{_NUMBER} {_NUMBER}").fullmatch
_BOOK_TOPIC = re.compile(r"orderbook\.[0-9]{1,4}\.")
_TOPIC_ANYWHERE = re.compile(rb'"topic"\s*:\s*"([A-Za-z0-9_.-]{1,100})"')


def decode(raw: bytes) -> Message:
    """
    Decode one frame.

    Raises:
        FrameError: Not JSON, an unknown topic, a missing or wrongly typed field, or data of another symbol.
    """
    # Public frames begin with their topic; private ones, and any other order of keys, are decoded in two steps.
    decoder = _decoder_by_start.get(raw[:_START_BYTES])
    try:
        if decoder is None:
            envelope = _envelope.decode(raw)
            if envelope.topic is None:
                return _control(envelope)
            decoder, _ = _topic(envelope.topic)
        message = decoder.decode(raw)
    except DECODE_ERRORS as error:
        raise FrameError(decode_problem(error)) from error
    expected, symbol = _topic(message.topic)
    if decoder is not expected:  # of two topics in one frame msgspec keeps the last
        raise FrameError("two topics in one frame")
    # Inline, the most frequent first: function calls would add half a microsecond per frame.
    if type(message) is BookMessage:
        data = message.data
        if data.s != symbol:
            raise _other_symbol("$.data.s")
        if _is_usual_side(data.b) is None:
            _check_levels(data.b, "$.data.b")
        if _is_usual_side(data.a) is None:
            _check_levels(data.a, "$.data.a")
    elif type(message) is TradesMessage:
        for row in message.data:
            if row.s != symbol:
                raise _other_symbol("$.data[...].s")
            # One match for both is several times faster than one msgspec pattern check for each.
            if _are_two_numbers(f"{row.v} {row.p}") is None:
                wrong = f"[{message.data.index(row)}].{'p' if _is_number(row.v) else 'v'}"
                raise FrameError(f"expected a decimal number as `str` - at `$.data{wrong}`")
    elif type(message) is TickerMessage:
        if symbol is None or message.data.get("symbol") != symbol:
            raise _other_symbol("$.data.symbol")
        check_ticker(message.data)
    elif type(message) is LiquidationsMessage:
        for liquidation in message.data:
            if liquidation.s != symbol:
                raise _other_symbol("$.data[...].s")
    return message


def decode_levels(levels: msgspec.Raw) -> list[tuple[str, str]]:
    """Decode a checked side of a book to `[(price, size), …]`."""
    return _unchecked_levels.decode(levels)


def channel_named_in(raw: bytes) -> str | None:
    """Find the channel in a frame that cannot be decoded; None if it is not found."""
    found = _TOPIC_ANYWHERE.search(raw)
    return found[1].decode() if found else None


_unchecked_levels = msgspec.json.Decoder(list[tuple[str, str]])


@lru_cache(maxsize=4_096)
def _topic(topic: str) -> tuple[msgspec.json.Decoder[DataMessage], str | None]:
    """Return the decoder of a topic's messages, and the symbol in the topic; None if there is none."""
    feed = topic.partition(".")[0]
    decoder = _decoder_by_feed.get(feed)
    if decoder is None:
        raise FrameError("unknown topic")
    if feed == "orderbook" and _BOOK_TOPIC.match(topic) is None:
        raise FrameError("an order book without a depth in its topic")
    return decoder, topic.rpartition(".")[2] or None


def _control(envelope: _WithTopic) -> Control:
    if envelope.op is None and envelope.success is None and envelope.ret_msg is None:
        raise FrameError("neither a topic nor an answer about the connection")
    return envelope


def _other_symbol(path: str) -> FrameError:
    return FrameError(f"expected the symbol of the topic - at `{path}`")


def _check_levels(levels: msgspec.Raw, path: str) -> None:
    try:
        _levels.decode(levels)
    except DECODE_ERRORS as error:
        raise FrameError(f"{decode_problem(error)} (in {path})") from error


def decode_problem(error: Exception) -> str:
    """Return why something could not be decoded, without the values in it."""
    # msgspec reports types and paths; it quotes a value only for an unknown member of an enumeration or tag.
    text = str(error)
    if isinstance(error, UnicodeDecodeError):
        return "not valid UTF-8"
    if text.startswith("Invalid enum value"):
        return "a value outside the known ones" + text[text.rfind(" - at") :] if " - at" in text else "an unknown value"
    return text[:300]
