"""Session protocol of one connection, without a socket."""

import json
import math
from typing import Any

import msgspec
import pytest

from hedgelock_ingest.protocol.messages import Control
from hedgelock_ingest.protocol.websocket_session import (
    Authenticated,
    Confirmed,
    Effect,
    Lost,
    Rejected,
    Send,
    SessionTiming,
    Unanswered,
    WebSocketSession,
)

BOOK, TICKER, TRADES = "orderbook.50.BTCUSDT", "tickers.BTCUSDT", "publicTrade.BTCUSDT"

PONGS = [
    '{"success":true,"ret_msg":"pong","conn_id":"0970e817-426e-429a-a679-ff7f55e0b16a","op":"ping"}',
    '{"success":true,"ret_msg":"pong","conn_id":"465772b1-7630","req_id":"","op":"ping"}',
    '{"args":["1672916271846"],"op":"pong"}',
    '{"req_id":"test","op":"pong","args":["1675418560633"],"conn_id":"cfcb4ocsvfriu23r3er0-1b"}',
]


def a_session(*channels: str) -> WebSocketSession:
    """Build a session opened at 0, with its subscriptions sent."""
    session = WebSocketSession(channels or (TICKER,), SessionTiming())
    session.opened(0.0)
    return session


def a_confirmed_session(*channels: str) -> WebSocketSession:
    """Build a session opened at 0, with its subscriptions confirmed."""
    session = a_session(*channels)
    for number in range(len(channels or (TICKER,))):
        session.control_received(an_answer(str(number + 1)), 0.0)
    return session


def an_answer(req_id: str | None = None, *, op: str = "subscribe", success: bool = True, ret_msg: str = "") -> Control:
    """Build an acknowledgement, or a refusal."""
    return Control(op=op, success=success, ret_msg=ret_msg, req_id=req_id, conn_id="c")


def sent(effects: list[Effect]) -> list[dict[str, Any]]:
    """Return the requests among the effects."""
    return [json.loads(effect.text) for effect in effects if isinstance(effect, Send)]


def test_each_channel_is_subscribed_in_a_separate_request() -> None:
    """One refused channel fails all the others of its request."""
    requests = sent(WebSocketSession([BOOK, TICKER], SessionTiming()).opened(0.0))

    assert [(request["op"], request["args"]) for request in requests] == [
        ("subscribe", [BOOK]),
        ("subscribe", [TICKER]),
    ]
    assert requests[0]["req_id"] != requests[1]["req_id"]


def test_acknowledgement_confirms_the_channel_with_its_request_id() -> None:
    """The acknowledgement does not contain the channel."""
    session = a_session(BOOK, TICKER)

    assert session.control_received(an_answer("2"), 1.0) == [Confirmed(TICKER)]


def test_acknowledgement_without_id_confirms_the_oldest_request() -> None:
    """Spot may omit the id."""
    session = a_session(BOOK, TICKER)

    assert session.control_received(an_answer(None), 1.0) == [Confirmed(BOOK)]
    assert session.control_received(an_answer(""), 1.0) == [Confirmed(TICKER)]
    assert session.control_received(an_answer(""), 1.0) == []


def test_refusal_without_id_applies_to_the_channel_that_it_names() -> None:
    """The oldest request may be a valid one whose acknowledgement is under way."""
    session = a_session(BOOK, TICKER)

    effects = session.control_received(an_answer(success=False, ret_msg=f"Invalid symbol :[{TICKER}]"), 1.0)

    assert effects == [Rejected(TICKER, f"Invalid symbol :[{TICKER}]")]


def test_refusal_without_id_and_channel_applies_to_the_oldest_request() -> None:
    """A wrong guess costs one retry, but the refusal must be reported."""
    session = a_session(BOOK, TICKER)

    effects = session.control_received(an_answer(success=False, ret_msg="args size >10"), 1.0)

    assert effects == [Rejected(BOOK, "args size >10")]


def test_refused_channel_is_retried_a_minute_later() -> None:
    """A symbol may be listed later, but an immediate retry would only be refused again."""
    session = a_session(TICKER, TRADES)
    session.control_received(an_answer("1"), 1.0)
    session.control_received(an_answer("2", success=False, ret_msg="no"), 1.0)
    session.data_received(60.0)

    assert TRADES not in str(session.tick(60.0))
    assert [request["args"] for request in sent(session.tick(61.0)) if request["op"] == "subscribe"] == [[TRADES]]


def test_already_subscribed_counts_as_confirmed() -> None:
    """It is the answer to a request repeated because the first acknowledgement was late."""
    session = a_session(TICKER)

    effects = session.control_received(
        an_answer("1", success=False, ret_msg=f"error:already subscribed,topic:{TICKER}"), 1.0
    )

    assert effects == [Confirmed(TICKER)]


def test_unanswered_subscription_is_reported_and_sent_again() -> None:
    """A lost acknowledgement must not leave a channel without a subscription."""
    session = a_session(TRADES)

    assert session.tick(9.9) == []
    effects = session.tick(10.0)

    assert effects[0] == Unanswered(TRADES)
    assert [request["args"] for request in sent(effects)] == [[TRADES]]


def test_late_acknowledgement_of_the_first_request_confirms() -> None:
    """Both requests are for the same channel; the first answer confirms it, and the second is ignored."""
    session = a_session(TRADES, TICKER)
    session.data_received(10.0)
    session.tick(10.0)

    assert session.control_received(an_answer("1"), 11.0) == [Confirmed(TRADES)]
    late = an_answer("3", success=False, ret_msg=f"error:already subscribed,topic:{TRADES}")
    assert session.control_received(late, 11.0) == []


def test_resubscription_waits_for_the_unsubscription() -> None:
    """Bybit refuses to subscribe a channel that is still subscribed."""
    session = a_confirmed_session(BOOK)

    first = sent(session.resubscribe(BOOK, 5.0))
    second = sent(session.control_received(an_answer(first[0]["req_id"], op="unsubscribe"), 5.1))
    effects = session.control_received(an_answer(second[0]["req_id"]), 5.2)

    assert [(request["op"], request["args"]) for request in first + second] == [
        ("unsubscribe", [BOOK]),
        ("subscribe", [BOOK]),
    ]
    assert effects == [Confirmed(BOOK)]


def test_resubscription_under_way_is_not_started_again() -> None:
    """Otherwise each further skipped update would send another pair of requests."""
    session = a_confirmed_session(BOOK)
    session.resubscribe(BOOK, 5.0)

    assert session.resubscribe(BOOK, 5.1) == []


def test_acknowledgement_without_id_belongs_to_a_request_of_its_kind() -> None:
    """An unsubscription is confirmed while another channel's subscription is unanswered."""
    session = a_session(TICKER, BOOK)
    session.control_received(an_answer("2"), 1.0)
    session.resubscribe(BOOK, 2.0)

    effects = session.control_received(an_answer(None, op="unsubscribe"), 3.0)

    assert [request["args"] for request in sent(effects)] == [[BOOK]]


def test_resubscription_refused_as_already_subscribed_ends_the_connection() -> None:
    """Bybit did not unsubscribe, so no snapshot will come on this connection."""
    session = a_confirmed_session(BOOK)
    session.resubscribe(BOOK, 5.0)
    session.control_received(an_answer("2", op="unsubscribe"), 5.1)

    effects = session.control_received(an_answer("3", success=False, ret_msg="error:already subscribed"), 5.2)

    assert isinstance(effects[0], Lost)
    assert effects[0].cause == "resubscribe_refused"


@pytest.mark.parametrize("pong", PONGS)
def test_every_shape_of_pong_answers_the_ping(pong: str) -> None:
    """Bybit has four shapes, two of them with `op: "ping"`."""
    session = a_confirmed_session(TRADES)

    assert [request["op"] for request in sent(session.tick(20.0))] == ["ping"]
    session.control_received(msgspec.json.decode(pong, type=Control), 20.1)

    assert Lost("no_pong") not in session.tick(30.0)


def test_missing_pong_ends_the_connection() -> None:
    """A connection that is open only on our side would stay silent forever."""
    session = a_confirmed_session(TRADES)
    session.tick(20.0)

    assert session.tick(29.9) == []
    assert session.tick(30.0) == [Lost("no_pong")]


def test_pings_are_sent_every_twenty_seconds() -> None:
    """Bybit asks for that interval, and closes private connections that are silent for long."""
    session = a_confirmed_session(TRADES)
    pings = []
    for second in range(1, 101):
        now = float(second)
        if any(request["op"] == "ping" for request in sent(session.tick(now))):
            pings.append(second)
            session.control_received(msgspec.json.decode(PONGS[0], type=Control), now)

    assert pings == [20, 40, 60, 80, 100]


def test_silence_on_a_steady_channel_ends_the_connection_unless_pongs_come() -> None:
    """Half open, it would stay silent; it is pinged early enough for the pong to come before."""
    session = a_confirmed_session(TICKER)
    session.data_received(15.0)

    assert session.next_due_s() == 20.0
    assert [request["op"] for request in sent(session.tick(20.0))] == ["ping"]
    assert session.tick(24.9) == []
    assert session.tick(25.0) == [Lost("stale")]


def test_silence_with_pongs_is_left_to_the_owner() -> None:
    """The market may be quiet: only the owner sees whether other connections bring data."""
    session = a_confirmed_session(TICKER)
    session.data_received(5.0)
    pings = []
    for tenth in range(50, 1_000):
        if effects := session.tick(tenth / 10):
            assert [request["op"] for request in sent(effects)] == ["ping"]
            pings.append(tenth / 10)
            session.control_received(msgspec.json.decode(PONGS[0], type=Control), tenth / 10)

    assert pings == [10.0, 30.0, 50.0, 70.0, 90.0]
    assert session.silent_since_s == 5.0


def test_pong_of_a_ping_before_the_last_data_proves_nothing_about_the_silence() -> None:
    """The connection may have become half open just after it."""
    session = a_confirmed_session(TICKER)
    for second in (5.0, 10.0, 15.0):
        session.data_received(second)
    session.tick(20.0)
    session.data_received(20.1)
    session.control_received(msgspec.json.decode(PONGS[0], type=Control), 20.2)

    assert [request["op"] for request in sent(session.tick(session.next_due_s()))] == ["ping"]
    assert session.tick(30.1) == [Lost("stale")]


def test_first_data_after_a_proved_silence_makes_a_tick_due_earlier() -> None:
    """The owner sleeps until the next ping, and must not sleep past the end of the silence that begins now."""
    session = a_confirmed_session(TICKER)
    session.tick(5.0)
    session.control_received(msgspec.json.decode(PONGS[0], type=Control), 5.1)
    due_s = session.next_due_s()

    assert session.data_received(6.0)
    assert session.next_due_s() == 11.0 < due_s
    assert not session.data_received(6.5)


def test_data_is_not_awaited_where_no_channel_is_steady() -> None:
    """Trades may pause, and a refused channel sends nothing."""
    session = a_session(TICKER, TRADES)
    session.control_received(an_answer("1", success=False, ret_msg="no"), 1.0)

    assert session.silent_since_s == math.inf


def test_trades_alone_are_never_stale() -> None:
    """A quiet market has no trades."""
    session = a_confirmed_session(TRADES)

    assert session.tick(19.9) == []


def test_refused_steady_channel_does_not_make_the_line_stale() -> None:
    """Otherwise one unknown symbol would reopen the connection every ten seconds."""
    session = a_session(TICKER)
    session.control_received(an_answer("1", success=False, ret_msg="no"), 1.0)

    assert session.tick(19.9) == []


def test_next_due_is_when_tick_first_does_something() -> None:
    """The owner sleeps until then; if it were too late, a dead line would look alive."""
    session = a_confirmed_session(TICKER)

    for effects in (["ping"], []):
        due = session.next_due_s()

        assert session.tick(due - 0.001) == []
        done = session.tick(due)
        assert [request["op"] for request in sent(done)] == effects
    assert done == [Lost("stale")]


def test_private_line_subscribes_after_the_key_is_accepted() -> None:
    """Bybit refuses private channels before authentication."""
    session = WebSocketSession(["wallet"], SessionTiming())

    request = sent(session.opened(0.0, auth=["key", 1662350400000, "signature"]))
    effects = session.control_received(an_answer(None, op="auth"), 0.5)

    assert [(each["op"], each["args"]) for each in request] == [("auth", ["key", 1662350400000, "signature"])]
    assert effects[0] == Authenticated()
    assert [each["args"] for each in sent(effects)] == [["wallet"]]


def test_refused_key_ends_the_connection() -> None:
    """No private data would come on it."""
    session = WebSocketSession(["wallet"], SessionTiming())
    session.opened(0.0, auth=["key", 1, "signature"])

    effects = session.control_received(an_answer(None, op="auth", success=False, ret_msg="Params Error"), 0.5)

    assert effects == [Lost("auth_rejected", "Params Error")]


def test_unanswered_authentication_ends_the_connection() -> None:
    """Without it no channel would ever be subscribed."""
    session = WebSocketSession(["wallet"], SessionTiming())
    session.opened(0.0, auth=["key", 1, "signature"])

    assert session.tick(10.0) == [Lost("no_auth_answer")]


def test_ping_before_it_is_due_asks_for_its_own_pong() -> None:
    """A channel may be quiet; only the pong proves that what Bybit sent before has arrived."""
    timing = SessionTiming()
    session = a_confirmed_session(TRADES)

    assert [request["op"] for request in sent(session.ping(1.0))] == ["ping"]
    assert session.next_due_s() == 1.0 + timing.pong_timeout_s
    assert session.tick(1.0 + timing.pong_timeout_s) == [Lost("no_pong")]


def test_pong_of_an_early_ping_delays_the_next_one() -> None:
    """A ping that was just answered need not be sent again at its old time."""
    timing = SessionTiming()
    session = a_confirmed_session(TRADES)
    session.ping(1.0)

    session.control_received(Control(op="ping", success=True, ret_msg="pong"), 1.5)

    assert session.next_due_s() == 1.0 + timing.ping_interval_s
