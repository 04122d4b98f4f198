"""The faults of the exchange, as switches."""

import base64
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

from hedgelock_ingest.errors import SandboxError
from hedgelock_ingest.sandbox.exchange.account.past import KEPT_S
from hedgelock_ingest.sandbox.exchange.clock import ExchangeClock
from hedgelock_ingest.sandbox.exchange.faults.lag import AnswerTime, RestLag
from hedgelock_ingest.sandbox.exchange.faults.malformed import malformed_frame
from hedgelock_ingest.sandbox.exchange.faults.rest import KINDS as REST_KINDS
from hedgelock_ingest.sandbox.exchange.faults.rest import RestFault
from hedgelock_ingest.sandbox.exchange.market.book_streams import BookStream
from hedgelock_ingest.sandbox.exchange.market.channels import Channels, ExchangeChannel
from hedgelock_ingest.sandbox.exchange.market.market import PricePath
from hedgelock_ingest.sandbox.exchange.market.market_streams import TradeStream
from hedgelock_ingest.sandbox.exchange.scenario import Scenario
from hedgelock_ingest.sandbox.exchange.sockets.connection import ExchangeConnection, websocket_frame
from hedgelock_ingest.sandbox.exchange.sockets.lines import KINDS, Lines

_INJECTED_KEPT = 1_000
_SAMPLE_BYTES = 4_096
STATUSES = ("PreLaunch", "Trading", "Delivering", "Closed")
"""Source: Bybit V5, Enums, `status`."""


class FaultSwitches:
    """
    Faults that can be switched on while the exchange runs.

    Lines are chosen by `category` (`spot`, `linear`, `private`; None is all) and `nth` (from 0, in the order in
    which they were opened; None is all of them). Methods return how many lines, or which identities, they hit.
    """

    def __init__(self, scenario: Scenario, channels: Channels, lines: Lines) -> None:
        self.scenario = scenario
        self.channels = channels
        self.lines = lines
        self.clock = ExchangeClock()
        self.rest_faults: list[RestFault] = []
        self.rest_lags: list[RestLag] = []
        self.drops_after_auth = 0
        self.ack_delay_s = 0.0
        self.refused_channels: dict[str, str] = {}
        self.injected: deque[dict[str, Any]] = deque(maxlen=_INJECTED_KEPT)

    def drop_lines(
        self,
        category: str | None = None,
        nth: int | None = None,
        *,
        how: Literal["reset", "close"] = "reset",
        code: int = 1001,
    ) -> int:
        """End lines now: with a TCP reset, or with a close frame such as 1001 or 1012."""
        chosen = self.lines.select(category, nth)
        for connection in chosen:
            if how == "reset":
                connection.reset("dropped")
            else:
                self.lines.close(connection, code)
        return len(chosen)

    def refuse_connections(self, how: str = "reset") -> None:
        """Refuse new connections: with a TCP `reset`, or with an HTTP status such as `403` or `503`."""
        if how != "reset" and not (how.isascii() and how.isdecimal() and 400 <= int(how) <= 599):
            raise SandboxError(f"connections cannot be refused by {how!r}; expected reset, or a status from 400 to 599")
        self.lines.refuses = how

    def accept_connections(self) -> None:
        """Accept new connections again."""
        self.lines.refuses = None

    def go_silent(self, category: str | None = None, nth: int | None = None, *, new_lines: bool = False) -> int:
        """Send no data while pings are still answered; with `new_lines` on lines opened later, too."""
        count = self._change_lines(category, nth, lambda line: setattr(line, "is_silent", True))
        if new_lines:
            self.lines.silent_kinds |= {category} if category else set(KINDS)
        return count

    def speak(self, category: str | None = None, nth: int | None = None) -> int:
        """Send data again, on new lines too; the events of the silent time are not sent to those lines."""
        self.lines.silent_kinds -= {category} if category else set(KINDS)
        return self._change_lines(category, nth, lambda line: setattr(line, "is_silent", False))

    def stop_answering_pings(self, category: str | None = None, nth: int | None = None) -> int:
        """Leave pings unanswered, Bybit's own and those of the WebSocket protocol; data continues."""
        return self._change_lines(category, nth, lambda line: setattr(line, "answers_pings", False))

    def answer_pings(self, category: str | None = None, nth: int | None = None) -> int:
        """Answer pings again."""
        return self._change_lines(category, nth, lambda line: setattr(line, "answers_pings", True))

    def slow_down(self, bytes_per_s: float, category: str | None = None, nth: int | None = None) -> int:
        """Limit the bytes a second sent to lines; the rest waits, up to a bound."""
        return self._change_lines(category, nth, lambda line: setattr(line, "bytes_per_s", bytes_per_s))

    def speed_up(self, category: str | None = None, nth: int | None = None) -> int:
        """Lift the limit of `slow_down`."""
        return self._change_lines(category, nth, lambda line: setattr(line, "bytes_per_s", None))

    def stall(self, category: str | None = None, nth: int | None = None) -> int:
        """Stop in the middle of the next frame, and let everything after it wait."""
        return self._change_lines(category, nth, lambda line: setattr(line, "is_stalled", True))

    def unstall(self, category: str | None = None, nth: int | None = None) -> int:
        """Continue where `stall` stopped."""
        return self._change_lines(category, nth, lambda line: setattr(line, "is_stalled", False))

    def duplicate_frames(self, category: str | None = None, channel: str | None = None, *, is_on: bool = True) -> int:
        """Send each event of channels twice, or no longer."""
        chosen = self._select_channels(category, channel)
        for one in chosen:
            one.doubles = is_on
        return len(chosen)

    def skip_update(self, category: str, channel: str, *, count: int = 1, nth: int | None = None) -> None:
        """Leave out the next events of a channel on all lines, or on the `nth` line of its category only."""
        one = self._channel(category, channel)
        if nth is None:
            one.skips += count
            return
        for connection in self.lines.select(category, nth):
            one.skips_of[connection] = count

    def restart_book(self, category: str, channel: str) -> int:
        """Restart a book with a snapshot whose `u` is 1, as after a restart of Bybit's service."""
        one, stream = self._book(category, channel)
        event = stream.restart(self.now_ms())
        one.publish(event, self.now_ms())
        return stream.update_id

    def resend_snapshot(self, category: str, channel: str) -> int:
        """Send a snapshot amid the deltas of a book, as Bybit does after trouble; return its `u`."""
        one, stream = self._book(category, channel)
        event = stream.start_over(self.now_ms())
        one.publish(event, self.now_ms())
        return stream.update_id

    def sweep(self, category: str, channel: str, fills: int) -> int:
        """Match one order with many fills at once; return the number of frames, 1,024 trades each."""
        one = self._channel(category, channel)
        if not isinstance(one.stream, TradeStream):
            raise SandboxError(f"{channel} carries no trades")
        events = one.stream.sweep(fills, self.now_ms())
        for event in events:
            one.publish(event, self.now_ms())
        return len(events)

    def add_unknown_fields(self, category: str, channel: str, *, count: int = 1) -> None:
        """Add unknown fields to the next events of a channel; the frames stay valid."""
        self._channel(category, channel).extra_fields += count

    def inject(
        self,
        kind: str,
        category: str,
        channel: str = "publicTrade.BTCUSDT",
        *,
        nth: int | None = None,
        megabytes: float = 2.0,
    ) -> int:
        """
        Send a malformed frame among the valid ones; return the number of lines it was sent to.

        Args:
            kind: `invalid_json`, `truncated`, `wrong_types`, `unknown_topic`, `binary`, `invalid_utf8`,
                `oversized`, `empty`, `not_an_object`.
            channel: The channel that the frame imitates.
            megabytes: The size of an oversized frame.
        """
        live = self.channels.live(category, channel)
        payload, first_byte = malformed_frame(kind, channel, live.last_text if live else "", megabytes=megabytes)
        chosen = self.lines.select(category, nth)
        frame = websocket_frame(payload, first_byte)
        for connection in chosen:
            connection.send_frame(frame)
        self.injected.append(
            {
                "kind": kind,
                "category": category,
                "channel": channel,
                "at_ms": self.now_ms(),
                "bytes": len(payload),
                "raw": base64.b64encode(payload[:_SAMPLE_BYTES]).decode(),
                "lines": [connection.conn_id for connection in chosen],
            }
        )
        return len(chosen)

    def delay_acks(self, seconds: float) -> None:
        """Hold back acknowledgements of subscriptions; data does not wait for them."""
        self.ack_delay_s = seconds

    def reject_subscription(self, channel: str, ret_msg: str | None = None) -> None:
        """Refuse a channel in both categories, with the given text or Bybit's."""
        self.refused_channels[channel] = ret_msg or f"error:handler not found,topic:{channel}"

    def accept_subscription(self, channel: str) -> None:
        """Accept subscriptions to a channel again."""
        self.refused_channels.pop(channel, None)

    def set_status(self, category: str, symbol: str, status: str) -> None:
        """
        Give a symbol another status, such as when it is delisted.

        Args:
            status: `Trading`; `PreLaunch` or `Delivering`: subscriptions are accepted, and nothing is sent; `Closed`:
                nothing is sent, subscriptions and requests are refused.
        """
        if (category, symbol) not in self.channels.markets:
            raise SandboxError(f"no market trades {symbol} in {category}")
        if status not in STATUSES:
            raise SandboxError(f"no status is called {status!r}; there are {', '.join(STATUSES)}")
        self.channels.set_status(category, symbol, status)

    def drop_after_auth(self, count: int = 1) -> None:
        """Reset the next private lines right after authentication, before they can subscribe."""
        self.drops_after_auth = count

    def fail_rest(
        self,
        kind: str,
        *,
        path: str = "/v5/",
        count: int | None = 1,
        status: int = 503,
        seconds: float = 0.0,
        ret_code: int = 10016,
    ) -> None:
        """
        Answer requests wrongly.

        Args:
            kind: `status` (an empty answer with `status`), `html` (a page instead of JSON), `truncated`,
                `silence` (the right answer after `seconds`), `forbidden` (403 with a page), `ret_code` (a
                refusal such as 10002, 10006, 10016 or 10032).
            path: The prefix of the paths that fail.
            count: How many requests; None until `restore_rest`.
        """
        if kind not in REST_KINDS:
            raise SandboxError(f"no fault of REST is of kind {kind!r}; there are {', '.join(REST_KINDS)}")
        self.rest_faults.append(
            RestFault(kind=kind, path=path, count=count, status=status, seconds=seconds, ret_code=ret_code)
        )

    def lag_rest(self, seconds: float, *, path: str = "/v5/", time: AnswerTime = "then") -> None:
        """
        Answer signed requests from the account as it stood so long ago, as a replica behind the stream does.

        Args:
            seconds: At most a minute; with 0 the answers are current again.
            path: The prefix of the paths that lag; the last call for a path counts.
            time: The envelope's `time`: `then`, that of the state, or `now`.
        """
        if not 0 <= seconds <= KEPT_S or time not in ("then", "now"):
            raise SandboxError(f"answers cannot lag by {seconds} s with the time of {time!r}; the limit is {KEPT_S} s")
        self.rest_lags.append(RestLag(path, int(seconds * 1_000), time))

    def restore_rest(self) -> None:
        """Answer all requests correctly again, from the current state."""
        self.rest_faults.clear()
        self.rest_lags.clear()

    def shift_clock(self, seconds: float) -> None:
        """Set the exchange's clock so many seconds ahead of the machine's, or behind."""
        self.clock.offset_s = seconds

    def move_price(self, symbol: str, factor: float) -> float:
        """Multiply the price of a symbol, such as by 0.8; the books follow with their next changes."""
        return self.set_price(symbol, self._path(symbol).price * float(factor))

    def set_price(self, symbol: str, price: float) -> float:
        """Set the price of a symbol; the books follow with their next changes."""
        path = self._path(symbol)
        path.jump_to(float(price))
        return path.price

    def now_ms(self) -> int:
        """Return the exchange's clock in milliseconds."""
        return self.clock.now_ms()

    def _change_lines(self, category: str | None, nth: int | None, change: Callable[[ExchangeConnection], None]) -> int:
        chosen = self.lines.select(category, nth)
        for connection in chosen:
            connection.flush()
            change(connection)
        return len(chosen)

    def _path(self, symbol: str) -> PricePath:
        path = self.channels.paths.get(symbol)
        if path is None:
            raise SandboxError(f"no market trades {symbol}")
        return path

    def _channel(self, category: str, channel: str) -> ExchangeChannel:
        if not self.channels.knows(category, channel):
            raise SandboxError(f"no channel {channel} in {category}")
        return self.channels.open(category, channel)

    def _book(self, category: str, channel: str) -> tuple[ExchangeChannel, BookStream]:
        one = self._channel(category, channel)
        if not isinstance(one.stream, BookStream):
            raise SandboxError(f"{channel} is not an order book")
        return one, one.stream

    def _select_channels(self, category: str | None, channel: str | None) -> list[ExchangeChannel]:
        if category is not None and category not in KINDS:
            raise SandboxError(f"no channels are of the category {category!r}; there are {', '.join(KINDS)}")
        return [one for one in self.channels if category in (None, one.category) and channel in (None, one.name)]
