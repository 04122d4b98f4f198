"""AnswerReceiver of public sockets, compared key by key with the documentation's examples and recorded rejections."""

import json
from random import Random
from typing import Any

import pytest

from hedgelock_ingest.sandbox.exchange.sockets.public_protocol import Answer, PublicProtocol

KNOWN = {"tickers.BTCUSDT", "publicTrade.BTCUSDT", *(f"orderbook.50.{number}USDT" for number in range(20))}
CONN_ID = "2324d924-aa4d-45b0-a858-7b8be29ab52b"


def ask(category: str, request: dict[str, Any] | str, *, subscribed: set[str] | None = None, seed: int = 1) -> Answer:
    protocol = PublicProtocol(
        category=category,
        conn_id=CONN_ID,
        knows=KNOWN.__contains__,
        refusal={"tickers.BTCUSDT2": "error:no"}.get,
        random=Random(seed),
    )
    text = request if isinstance(request, str) else json.dumps(request)
    return protocol.answer(text, subscribed or set())


def subscribe(*channels: str, **fields: Any) -> dict[str, Any]:
    return {"op": "subscribe", "args": list(channels), **fields}


@pytest.mark.parametrize(
    ("category", "request_", "example"),
    [
        (
            "spot",
            subscribe("tickers.BTCUSDT", req_id="10001"),
            '{"success":true,"ret_msg":"subscribe","conn_id":"%s","req_id":"10001","op":"subscribe"}',
        ),
        (
            "spot",
            subscribe("tickers.BTCUSDT"),
            '{"success":true,"ret_msg":"subscribe","conn_id":"%s","op":"subscribe"}',
        ),
        (
            "linear",
            subscribe("tickers.BTCUSDT"),
            '{"success":true,"ret_msg":"","conn_id":"%s","req_id":"","op":"subscribe"}',
        ),
        (
            "linear",
            subscribe("tickers.BTCUSDT", req_id="x1"),
            '{"success":true,"ret_msg":"","conn_id":"%s","req_id":"x1","op":"subscribe"}',
        ),
        ("spot", {"op": "ping"}, '{"success":true,"ret_msg":"pong","conn_id":"%s","op":"ping"}'),
        ("linear", {"op": "ping"}, '{"success":true,"ret_msg":"pong","conn_id":"%s","req_id":"","op":"ping"}'),
        (
            "linear",
            {"op": "ping", "req_id": "637252072726597"},
            '{"success":true,"ret_msg":"pong","conn_id":"%s","req_id":"637252072726597","op":"ping"}',
        ),
        (
            "linear",
            subscribe("orderbook.50.NOPEUSDT", req_id="e1"),
            '{"success":false,"ret_msg":"error:handler not found,topic:orderbook.50.NOPEUSDT",'
            '"conn_id":"%s","req_id":"e1","op":"subscribe"}',
        ),
        (
            "spot",
            {"op": "unsubscribe", "args": ["tickers.BTCUSDT"]},
            '{"success":true,"ret_msg":"unsubscribe","conn_id":"%s","op":"unsubscribe"}',
        ),
    ],
)
def test_an_answer_has_the_keys_of_bybits_example_in_their_order(
    category: str, request_: dict[str, Any], example: str
) -> None:
    """Spot and linear answer differently, and a client must accept both."""
    assert json.dumps(ask(category, request_).reply, separators=(",", ":")) == example % CONN_ID


@pytest.mark.parametrize(
    ("category", "request_", "ret_msg"),
    [
        ("spot", subscribe("tickers.NOPEUSDT"), "Invalid symbol :[tickers.NOPEUSDT]"),
        ("spot", subscribe(*(f"orderbook.50.{number}USDT" for number in range(11))), "args size >10"),
        ("linear", subscribe("orderbook.50.btcusdt"), "error:handler not found,topic:orderbook.50.btcusdt"),
        ("linear", subscribe("wallet"), "error:handler not found,topic:wallet"),
        ("linear", {"op": "nope"}, "error:invalid op"),
        ("linear", {"op": "subscribe", "args": "tickers.BTCUSDT"}, "error:invalid op"),
    ],
)
def test_a_request_is_refused_with_the_text_recorded_by_clients(
    category: str, request_: dict[str, Any], ret_msg: str
) -> None:
    """A client distinguishes refusals by these texts."""
    answer = ask(category, request_)
    assert (answer.reply["success"], answer.reply["ret_msg"]) == (False, ret_msg)
    assert answer.subscribe == ()


def test_one_channel_that_is_already_subscribed_refuses_the_complete_request() -> None:
    """Channels that are new in the same request are not subscribed either."""
    request = subscribe("publicTrade.BTCUSDT", "tickers.BTCUSDT")
    answer = ask("linear", request, subscribed={"tickers.BTCUSDT"})
    assert answer.reply["ret_msg"] == "error:already subscribed,topic:tickers.BTCUSDT"
    assert answer.subscribe == ()


def test_the_refusal_of_a_spot_symbol_may_lack_its_req_id() -> None:
    """A client cannot rely on `req_id` alone to match it."""
    replies = [ask("spot", subscribe("tickers.NOPEUSDT", req_id="7"), seed=seed).reply for seed in range(20)]
    assert {reply.get("req_id") for reply in replies} == {"7", None}


@pytest.mark.parametrize("text", ["hello", "[1]", '{"op":'])
def test_a_request_that_is_not_a_json_object_is_answered_with_a_decode_error(text: str) -> None:
    """Bybit keeps the connection open and names what it could not read."""
    reply = ask("linear", text).reply
    assert reply["success"] is False
    assert reply["ret_msg"].startswith("Failed to decode incoming data")


def test_more_than_21000_characters_of_channels_are_refused() -> None:
    """This is the limit of one public connection."""
    taken = {f"orderbook.50.{number:0990d}" for number in range(21)}
    assert ask("linear", subscribe("tickers.BTCUSDT"), subscribed=taken).reply["success"] is False


def test_linear_takes_more_than_ten_channels_a_request() -> None:
    """Only spot limits them."""
    answer = ask("linear", subscribe(*(f"orderbook.50.{number}USDT" for number in range(11))))
    assert len(answer.subscribe) == 11
