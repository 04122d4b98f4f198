"""Decoding: recorded frames decode, in any order of keys, and answers are distinguished from data."""

import pytest

from hedgelock_ingest.errors import FrameError
from hedgelock_ingest.protocol.messages import (
    BookMessage,
    Control,
    TickerMessage,
    TradesMessage,
    channel_named_in,
    decode,
    decode_levels,
)
from hedgelock_ingest.protocol.private_messages import ExecutionMessage, OrderMessage, PositionMessage, WalletMessage
from hedgelock_ingest_tests.builders import AT_MS, a_snapshot, a_ticker, a_trade, in_json
from hedgelock_ingest_tests.translate.translating import sample_lines

KINDS = {
    "orderbook": BookMessage,
    "tickers": TickerMessage,
    "publicTrade": TradesMessage,
    "wallet": WalletMessage,
    "position": PositionMessage,
    "order": OrderMessage,
    "execution": ExecutionMessage,
}


@pytest.mark.parametrize("name", ["linear_public.jsonl", "spot_public.jsonl", "private.jsonl"])
def test_recorded_frames_decode(name: str) -> None:
    """Frames recorded from Bybit decode to the message type of their topic, all others to `Control`."""
    for raw in sample_lines(name):
        channel = channel_named_in(raw)
        expected = KINDS[channel.partition(".")[0]] if channel else Control
        assert isinstance(decode(raw), expected)


def test_order_of_keys_does_not_matter() -> None:
    """It differs between categories and depths, and clients must not rely on it (Orderbook, notes)."""
    usual = a_trade()
    data = usual[usual.index(b'"data"') : -1]
    unusual = b"{%b, %b}" % (data, usual[1 : usual.index(b',"data"')])

    assert decode(unusual) == decode(usual)
    assert decode(b" \n" + usual + b"\n") == decode(usual)


def test_levels_are_kept_as_text() -> None:
    """They are published unchanged; only applying them to a book decodes them."""
    message = decode(a_snapshot(bids=[("61873.90", "1.50")], asks=[]))

    assert isinstance(message, BookMessage)
    assert bytes(message.data.b) == b'[["61873.90","1.50"]]'
    assert decode_levels(message.data.b) == [("61873.90", "1.50")]
    assert decode_levels(message.data.a) == []


@pytest.mark.parametrize(
    ("raw", "is_pong"),
    [
        (b'{"success":true,"ret_msg":"pong","conn_id":"0970e817","op":"ping"}', True),
        (b'{"args":["1672916271846"],"op":"pong"}', True),
        (b'{"req_id":"test","op":"pong","args":["1675418560633"],"conn_id":"cfcb4ocsvfriu23r3er0-1b"}', True),
        (b'{"success":true,"ret_msg":"subscribe","conn_id":"2324d924","req_id":"10001","op":"subscribe"}', False),
        (b'{"success":true,"conn_id":"aa01","data":{"failTopics":[]},"type":"COMMAND_RESP"}', False),
        (b'{"success":false,"ret_msg":"Invalid symbol :[orderbook.1.NONE]","op":"subscribe"}', False),
    ],
)
def test_answers_about_the_connection_decode_as_control(raw: bytes, is_pong: bool) -> None:
    """Bybit's shapes differ by category; three of them are pongs (Connect, "How to Send the Heartbeat Packet")."""
    message = decode(raw)

    assert isinstance(message, Control)
    assert message.is_pong is is_pong


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "truncated"),
        (b"{", "truncated"),
        (a_trade(p=1), r"Expected `str`, got `int` - at `\$.data\[0\].p`"),
        (a_trade(S="x"), r"a value outside the known ones - at `\$.data\[0\].S`"),
        (a_ticker(fields={"bid1Price": "x"}), r"expected a decimal number as `str` - at `\$.data.bid1Price`"),
        (a_ticker(fields={"nextFundingTime": "-1"}), r"expected milliseconds .* at `\$.data.nextFundingTime`"),
        (a_snapshot(bids=[("1", "x")]), r"matching regex .* \(in \$.data.b\)"),
        (a_trade(s="ETHUSDT"), r"expected the symbol of the topic - at `\$.data\[...\].s`"),
        (
            b'{"topic":"tickers.","type":"snapshot","ts":1,"data":{"lastPrice":"1"}}',
            r"the symbol .* at `\$.data.symbol`",
        ),
        (in_json({"topic": "kline.1.BTCUSDT", "ts": AT_MS}), "unknown topic"),
        (b'{"topic":"tickers.X\xff"}', "not valid UTF-8"),
    ],
)
def test_reason_states_what_is_wrong_and_where(raw: bytes, reason: str) -> None:
    """An operator reads it first in a dead letter."""
    with pytest.raises(FrameError, match=reason):
        decode(raw)


@pytest.mark.parametrize(
    ("raw", "channel"),
    [
        (b'{"topic":"orderbook.50.BTCUSDT","ty', "orderbook.50.BTCUSDT"),
        (b'{"ts":1, "topic" : "wallet"', "wallet"),
        (b'{"topic":"orderbook.50', None),
        (b'{"topic":"<script>"}', None),
        (b"\xff\xff", None),
    ],
)
def test_channel_of_a_damaged_frame_is_found_by_its_pattern(raw: bytes, channel: str | None) -> None:
    """It is a guess, so only text that can be a channel is returned."""
    assert channel_named_in(raw) == channel
