"""The scripted exchange: a small market and account, WebSockets and REST in memory, and switchable faults."""

import asyncio
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

import msgspec

from hedgelock_ingest.bybit.socket_port import Connect, WebSocket
from hedgelock_ingest.clock import Clock
from hedgelock_ingest.errors import LineLost
from hedgelock_ingest.sandbox.exchange.keys import ApiKey
from hedgelock_ingest.sandbox.exchange.sockets.private_protocol import PrivateProtocol
from hedgelock_ingest.sandbox.exchange.sockets.public_protocol import PublicProtocol
from hedgelock_ingest_tests.builders import AT_MS
from hedgelock_ingest_tests.processes.evidence import Sent
from hedgelock_ingest_tests.processes.reference_client import Channel
from hedgelock_ingest_tests.simulation.account import TOPICS, MemoryAccount
from hedgelock_ingest_tests.simulation.channel_log import (
    ChannelLog,
    Connections,
    Malformed,
    malformed_frame,
    numbered_id,
)
from hedgelock_ingest_tests.simulation.lifetime import ClockedLifetime
from hedgelock_ingest_tests.simulation.market import (
    WEIGHTS,
    MemoryBookStream,
    MemoryMarket,
    MemoryTickerStream,
    MemoryTradeStream,
    Written,
    open_stream,
)
from hedgelock_ingest_tests.simulation.rest import MemoryHttp, RestFaults
from hedgelock_ingest_tests.simulation.sockets import Socket, Wires

PRIVATE = "private"
SPOT_FEEDS = ("publicTrade", "tickers", "orderbook.50")
LINEAR_FEEDS = ("publicTrade", "tickers", "orderbook.50", "allLiquidation")
_LATENCY_S = (0.004, 0.04)
_SPOT_SHARE = 0.5
_MAX_EVENTS_A_BEAT = 4
_MAX_SILENCE_MS = 1_500


class Exchange:
    """
    One exchange for all processes of a simulation.

    Everything is drawn from `random`, so that the same calls at the same times give the same frames. A fault lasts
    until a given time, in seconds of the clock, or happens once.

    `malformed` are the malformed frames: each that has arrived becomes one dead letter. `wrong_times` are the times of
    frames that were dated wrongly, `misdated` the identities of their events.
    """

    def __init__(
        self,
        clock: Clock,
        random: Random,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        base_ms: int = AT_MS,
        spot_feeds: Iterable[str] = SPOT_FEEDS,
        linear_feeds: Iterable[str] = LINEAR_FEEDS,
        goes_flat: bool = False,
    ) -> None:
        """
        Open the exchange.

        Args:
            clock: Its monotonic time is the loop's.
            random: Used by this exchange alone.
            loop: The running one by default.
            base_ms: Bybit's time when the clock shows 0.
            spot_feeds: The feeds of spot BTCUSDT.
            linear_feeds: The feeds of linear BTCUSDT.
            goes_flat: Whether positions may be closed, opened and reversed.
        """
        self.clock = clock
        self.random = random
        self.malformed: list[Malformed] = []
        self.sockets: list[Socket] = []
        self.rest = RestFaults()
        self.acks_lost_until_s = self.acks_late_until_s = self.data_first_until_s = self.repeating_until_s = 0.0
        self.acks_late_by_s = 0.0
        self.refused_until_s = self.hanging_until_s = self.key_refused_until_s = 0.0
        self.quiet_until_s = 0.0
        self.wrong_times: set[int] = set()
        self.misdated: set[Any] = set()
        self._wrong_ms: dict[Channel, int] = {}
        self._wires = Wires(clock, base_ms, loop)
        self._latency: Callable[[Socket], float] | None = None
        self._refused_channels: dict[str, float] = {}
        self._protocols: dict[Socket, PublicProtocol | PrivateProtocol] = {}
        self._last_connection = 0
        self.markets = {category: MemoryMarket(category, random) for category in ("spot", "linear")}
        self.logs: dict[Channel, ChannelLog] = {}
        self._weights: list[float] = []
        self._spoke_ms: dict[str, int] = {}
        for category, feeds in (("spot", spot_feeds), ("linear", linear_feeds)):
            self._spoke_ms[category] = self.now_ms()
            for feed in feeds:
                stream = open_stream(self.markets[category], feed)
                log = self.logs[category, stream.name] = ChannelLog((category, stream.name), stream)
                self._weights.append(WEIGHTS[feed] * (_SPOT_SHARE if category == "spot" else 1.0))
                if (snapshot := stream.snapshot(self.now_ms())) is not None:
                    log.raws.append(snapshot)
        self._public = list(self.logs.values())
        for topic in TOPICS:
            self.logs[PRIVATE, topic] = ChannelLog((PRIVATE, topic))
        self._touched: dict[Socket, None] = {}
        self.account = MemoryAccount(
            random, self.markets["linear"], self.now_ms, self._write_private, goes_flat=goes_flat
        )

    def now_ms(self) -> int:
        """Return Bybit's time."""
        return self._wires.now_ms()

    # Processes

    def connect(self, lifetime: ClockedLifetime) -> Connect:
        """Return a process's connect function; URLs end in `/spot` or `/linear`, or contain `/private`."""

        async def connect(url: str) -> WebSocket:
            return await self._open(lifetime, PRIVATE if f"/{PRIVATE}" in url else url.rpartition("/")[2])

        return connect

    def http(self, lifetime: ClockedLifetime) -> MemoryHttp:
        """Return a process's HTTP session."""
        return MemoryHttp(self._wires, lifetime, self.random, self.rest, self.account, self.markets)

    def process_ended(self, lifetime: ClockedLifetime) -> None:
        """Close the connections of an ended process; frames under way to it are lost."""
        for socket in self.connections(lifetime):
            self._lose(socket)

    def connections(self, lifetime: ClockedLifetime | None = None) -> list[Socket]:
        """Return the open connections of a process, or all."""
        return [socket for socket in self.sockets if socket.is_open and lifetime in (None, socket.lifetime)]

    async def _open(self, lifetime: ClockedLifetime, kind: str) -> Socket:
        latency_s = self.random.uniform(*_LATENCY_S)
        await self.clock.sleep(2 * latency_s)
        while (left_s := self.hanging_until_s - self.clock.monotonic()) > 0:
            await self.clock.sleep(left_s + latency_s)
        if self.clock.monotonic() < self.refused_until_s:
            raise LineLost("the exchange refuses connections", cause="connect_refused")
        self._last_connection += 1
        socket = Socket(self._wires, lifetime, kind, numbered_id(kind, self._last_connection), self._asked)
        socket.latency_s = latency_s if self._latency is None else self._latency(socket)
        if kind == PRIVATE:
            self._protocols[socket] = PrivateProtocol(
                socket.connection_id,
                self,  # type: ignore[arg-type]  # only now_ms of the clock is used
                refuses_key=self._refusal_of_key,
                refusal=self._refusal,
            )
        else:
            self._protocols[socket] = PublicProtocol(
                kind, socket.connection_id, lambda name: (kind, name) in self.logs, self._refusal, self.random
            )
        self.sockets.append(socket)
        return socket

    def _refusal_of_key(self, key: ApiKey) -> str | None:
        return "API key is invalid." if self.clock.monotonic() < self.key_refused_until_s else None

    def _refusal(self, name: str) -> str | None:
        is_refused = self.clock.monotonic() < self._refused_channels.get(name, 0.0)
        return f"error:handler not found,topic:{name}" if is_refused else None

    # Requests

    def _asked(self, socket: Socket, text: str) -> None:
        answer = self._protocols[socket].answer(text, socket.channels)
        now_s = self.clock.monotonic()
        ack = msgspec.json.encode(answer.reply)
        data: list[bytes] = []
        for name in answer.unsubscribe:
            socket.channels.pop(name, None)
            log = self.logs[socket.kind, name]
            log.subscribers = [one for one in log.subscribers if one is not socket]
        for name in answer.subscribe:
            socket.channels[name] = None
            log = self.logs[socket.kind, name]
            log.subscribers.append(socket)
            log.since_ms = self.now_ms() if log.since_ms is None else log.since_ms
            snapshot = None if log.stream is None or socket.is_silent else log.stream.snapshot(self.now_ms())
            data += [] if snapshot is None else [snapshot]
            if now_s < self.repeating_until_s and isinstance(log.stream, MemoryTradeStream):
                data += log.raws[-1:]
        is_subscription = answer.reply["op"] in ("subscribe", "unsubscribe")
        if is_subscription and now_s < self.acks_lost_until_s:
            frames = data
        elif is_subscription and now_s < self.acks_late_until_s:
            frames = data
            self._wires.call_at(now_s + self.acks_late_by_s, lambda: socket.write([ack]))
        elif now_s < self.data_first_until_s:
            frames = [*data, ack]
        else:
            frames = [ack, *data]
        if frames:
            socket.write(frames)

    # Events

    def beat(self, *, moves_account: bool = True) -> None:
        """Advance market and account, and send a burst of frames; call it about four times a second."""
        if self.clock.monotonic() >= self.quiet_until_s:
            self._move_markets()
        if moves_account:
            self.account.beat()
        self._flush()

    def _move_markets(self) -> None:
        now_ms = self.now_ms()
        count = 1 + int(self.random.random() * _MAX_EVENTS_A_BEAT)
        logs = {log.channel: log for log in self.random.choices(self._public, self._weights, k=count)}
        for category, spoke_ms in self._spoke_ms.items():
            if now_ms - spoke_ms > _MAX_SILENCE_MS:  # books and tickers are never quiet for long
                log = next(log for log in self._public if log.channel[0] == category)
                logs.setdefault(log.channel, log)
        for log in logs.values():
            assert log.stream is not None
            self._spoke_ms[log.channel[0]] = now_ms
            wrong_ms = self._wrong_ms.pop(log.channel, 0)
            written = log.stream.advance(now_ms, wrong_ms)
            if wrong_ms:
                self.wrong_times |= {now_ms + wrong_ms, now_ms + wrong_ms - 3}  # of a frame, and of trades in it
                self.misdated.update(map(str, written.identities))
            self._write(log, written)

    def act(self, action: Callable[[], object]) -> None:
        """Run an action of the account, such as `exchange.account.fill`, and send its frames."""
        action()
        self._flush()

    def _write(self, log: ChannelLog, written: Written) -> None:
        self._touched |= dict.fromkeys(log.write(written, self.now_ms()))

    def _write_private(self, topic: str, written: Written) -> None:
        self._write(self.logs[PRIVATE, topic], written)

    def _flush(self) -> None:
        touched, self._touched = self._touched, {}
        for socket in touched:
            if socket.lifetime.is_dead:
                self._lose(socket)
                continue
            frames, socket.pending = socket.pending, []
            if self._latency is not None:
                socket.latency_s = self._latency(socket)
            socket.write(frames)

    def _lose(self, socket: Socket) -> None:
        socket.cut()
        self._protocols.pop(socket, None)
        for name in socket.channels:
            log = self.logs[socket.kind, name]
            log.subscribers = [one for one in log.subscribers if one is not socket]

    # Evidence

    @property
    def frames(self) -> dict[Channel, list[dict[str, Any]]]:
        """Return the decoded frames that a faultless client has read, by channel; a snapshot comes first."""
        return {channel: log.frames() for channel, log in self.logs.items()}

    def sent(self) -> dict[Channel, list[Sent]]:
        """Return the events of each public channel, with the connections that they were written to."""
        connections = Connections()
        return {log.channel: log.sent(connections) for log in self._public}

    def sent_to_account(self) -> dict[Channel, list[Sent]]:
        """Return the events of each private channel; identities are execution ids, and message ids on the others."""
        connections = Connections()
        return {(PRIVATE, topic): self.logs[PRIVATE, topic].sent(connections) for topic in TOPICS}

    def account_span(self, topic: str) -> tuple[int, int]:
        """Return the first and the last time of a private channel's subscriptions, by Bybit's time."""
        ends_ms = [one.closed_ms or self.now_ms() for one in self.sockets if topic in one.channels]
        return self.logs[PRIVATE, topic].since_ms or self.now_ms(), max(ends_ms, default=0)

    def forget_readers(self) -> None:
        """Count the events so far as written to no connection: their readers have kept none of them."""
        for log in (*self._public, *(self.logs[PRIVATE, topic] for topic in TOPICS)):
            for event in log.events:
                event.sockets = []
            log.since_ms = None

    def known_dead_letters(self) -> int:
        """Count the malformed frames that have arrived."""
        return sum(one.has_arrived for one in self.malformed)

    # Faults of connections

    def drop(self, socket: Socket) -> None:
        """Reset a connection; what is under way is lost."""
        self._lose(socket)

    def close(self, socket: Socket) -> None:
        """Close a connection with a close frame, as Bybit does for maintenance."""
        socket.close_by_exchange()

    def silence(self, socket: Socket) -> None:
        """Send no more data on a connection; pings and requests are answered."""
        socket.is_silent = True

    def half_open(self, socket: Socket) -> None:
        """Drop everything in both directions, without a close."""
        socket.go_half_open()

    def delay(self, socket: Socket, seconds: float) -> None:
        """Add latency to a connection from now on; its order is kept."""
        socket.latency_s += seconds

    def set_latency(self, latency: Callable[[Socket], float] | None) -> None:
        """Draw the latency of each burst, and of new connections, from a function; None restores a constant one."""
        self._latency = latency

    def refuse_connects(self, until_s: float) -> None:
        """Refuse new connections."""
        self.refused_until_s = until_s

    def hang_connects(self, until_s: float) -> None:
        """Let new connections wait."""
        self.hanging_until_s = until_s

    # Faults of subscriptions

    def lose_acks(self, until_s: float) -> None:
        """Process requests about channels without answering."""
        self.acks_lost_until_s = until_s

    def late_acks(self, seconds: float, until_s: float) -> None:
        """Answer requests about channels with a delay; data flow meanwhile."""
        self.acks_late_by_s, self.acks_late_until_s = seconds, until_s

    def data_before_ack(self, until_s: float) -> None:
        """Send the first data of a subscription before its acknowledgement."""
        self.data_first_until_s = until_s

    def repeat_trades(self, until_s: float) -> None:
        """Send the last trades of a channel again to each new subscriber."""
        self.repeating_until_s = until_s

    def refuse_subscription(self, name: str, until_s: float) -> None:
        """Refuse a channel by its name, in all categories."""
        self._refused_channels[name] = until_s

    def refuse_key(self, until_s: float) -> None:
        """Refuse the key, on WebSockets and REST."""
        self.key_refused_until_s = self.rest.key_refused_until_s = until_s

    # Faults of markets

    def quieten(self, until_s: float) -> None:
        """
        Let nothing happen on any market; pings and requests are answered.

        A ticker comes last: on Bybit each trade changes its volume, so that no trade is later than the ticker.
        """
        self.quiet_until_s = until_s
        for log in self._public:
            if isinstance(log.stream, MemoryTickerStream) and self.clock.monotonic() < until_s:
                self._write(log, log.stream.advance(self.now_ms()))
        self._flush()

    def misdate(self, channel: Channel, wrong_ms: int) -> None:
        """Date the next event of a public channel wrongly, by so much ahead."""
        self._wrong_ms[channel] = wrong_ms

    # Faults of frames

    def skip(self, socket: Socket, name: str) -> None:
        """Leave out the next event of a channel on one connection; Bybit is known to do so only with books."""
        socket.skips.add(name)

    def double(self, socket: Socket, name: str) -> None:
        """Write the next event of a channel twice on one connection."""
        socket.doubles.add(name)

    def send_malformed(self, socket: Socket) -> None:
        """Write a malformed frame."""
        if not socket.takes_data:
            return
        logs = [log for name in socket.channels if (log := self.logs[socket.kind, name]).raws]
        model = self.random.choice(logs).raws[-1] if logs else b'{"topic":"order"'
        malformed = Malformed(malformed_frame(model, self.random.randrange(1 << 30)), self.now_ms(), socket)
        self.malformed.append(malformed)
        socket.on_arrival = self._note_malformed
        socket.write([malformed.raw])

    def _note_malformed(self, frames: list[bytes]) -> None:
        for one in self.malformed:
            one.has_arrived = one.has_arrived or any(raw is one.raw for raw in frames)

    def restart_book(self, channel: Channel) -> bool:
        """Restart a book at 1 with a snapshot to all; once a channel, since a proof identifies updates by number."""
        log = self.logs[channel]
        if not isinstance(log.stream, MemoryBookStream) or log.stream.was_restarted:
            return False
        self._write(log, log.stream.restart(self.now_ms()))
        self._flush()
        return True

    def snapshot_again(self, channel: Channel) -> None:
        """Send a snapshot of a book or a ticker to all amid its deltas."""
        log = self.logs[channel]
        assert isinstance(log.stream, MemoryBookStream | MemoryTickerStream)
        self._write(log, log.stream.start_over(self.now_ms()))
        self._flush()

    # Faults of REST

    def rest_late(self, delay_s: float) -> None:
        """Delay answers after they were made; 0 ends it."""
        self.rest.late_by_s = delay_s

    def rest_behind(self, seconds: float, *methods: str, is_dated_now: bool = False) -> None:
        """Make answers of some or all methods show account and market, and mostly `time`, of so long ago; 0 ends it."""
        for method in methods or ("",):
            self.rest.behind_s[method] = seconds
        self.rest.is_dated_now = is_dated_now

    def rest_limited(self, until_s: float) -> None:
        """Answer that there are too many requests."""
        self.rest.limited_until_s = until_s

    def rest_hangs(self, until_s: float) -> None:
        """Never answer the requests of the time until then."""
        self.rest.hanging_until_s = until_s

    def rest_down(self, until_s: float) -> None:
        """Return no usable answer."""
        self.rest.down_until_s = until_s

    def rest_wrong(self, until_s: float) -> None:
        """Answer in a wrong shape, or with something other than Bybit's envelope."""
        self.rest.wrong_until_s = until_s
