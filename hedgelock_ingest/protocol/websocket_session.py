"""Protocol of one Bybit WebSocket connection: authentication, subscriptions, pings, staleness."""

import enum
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hedgelock_ingest.protocol.channels import is_steady
from hedgelock_ingest.protocol.messages import Control


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionTiming:
    """
    Intervals and timeouts of a session, in seconds.

    Bybit asks for a ping every 20 s. A refused subscription is retried, since a symbol may be listed later. After
    `stale_after_s` with neither data nor pongs a connection is lost.

    Source: Bybit V5, Connect, "How to Send the Heartbeat Packet".
    """

    ping_interval_s: float = 20.0
    pong_timeout_s: float = 10.0
    answer_timeout_s: float = 10.0
    stale_after_s: float = 10.0
    rejected_retry_s: float = 60.0


class Send(NamedTuple):
    """The owner must send this text."""

    text: str


class Authenticated(NamedTuple):
    """Bybit has accepted the key."""


class Confirmed(NamedTuple):
    """Bybit has accepted a subscription."""

    channel: str


class Rejected(NamedTuple):
    """Bybit has refused a subscription; the session retries it later."""

    channel: str
    reason: str


class Unanswered(NamedTuple):
    """A request about a channel was not answered in time and is sent again; its data may still arrive."""

    channel: str


class Lost(NamedTuple):
    """The connection must be closed; `cause` is `no_pong`, `stale`, `auth_rejected`, … ."""

    cause: str
    detail: str = ""


type Effect = Send | Authenticated | Confirmed | Rejected | Unanswered | Lost


class _Phase(enum.Enum):
    SUBSCRIBING = enum.auto()
    CONFIRMED = enum.auto()
    UNSUBSCRIBING = enum.auto()
    REJECTED = enum.auto()


_PHASE_BY_OP = {"subscribe": _Phase.SUBSCRIBING, "unsubscribe": _Phase.UNSUBSCRIBING}


@dataclass(slots=True)
class _Subscription:
    channel: str
    phase: _Phase = _Phase.SUBSCRIBING
    due_s: float = math.inf
    replaces: bool = False  # subscribed before on this connection, so "already subscribed" is no success


@dataclass(slots=True)
class _Requests:
    """Requests about channels without an answer yet, oldest first."""

    last_id: int = 0
    channel_by_id: dict[str, str] = field(default_factory=dict)

    def next_id(self) -> str:
        self.last_id += 1
        return str(self.last_id)

    def is_used(self, request_id: str) -> bool:
        return request_id.isdecimal() and int(request_id) <= self.last_id

    def forget(self, channel: str) -> None:
        self.channel_by_id = {key: name for key, name in self.channel_by_id.items() if name != channel}


class WebSocketSession:
    """
    Protocol state of one connection, from its opening to its end; `now_s` is any monotonic clock.

    Each method returns what the owner must do, in order. Data frames stay outside: the owner reports their arrival.
    Whether a connection that is silent and answers pings must be replaced is the owner's decision: the market may be
    quiet.
    """

    def __init__(self, channels: Sequence[str], timing: SessionTiming) -> None:
        self._timing = timing
        self._subscriptions = {channel: _Subscription(channel) for channel in channels}
        self._requests = _Requests()
        self._last_data_s = math.inf
        self._auth_due_s = math.inf
        self._ping_due_s = math.inf
        # When the first ping without an answer was sent, and the last one with an answer.
        self._unanswered_s, self._answered_s = math.inf, -math.inf

    @property
    def silent_since_s(self) -> float:
        """When the last data arrived, or the subscriptions were sent; infinity if no channel sends continuously."""
        expects_data = any(
            is_steady(each.channel) and each.phase is not _Phase.REJECTED for each in self._subscriptions.values()
        )
        return self._last_data_s if expects_data else math.inf

    def opened(self, now_s: float, *, auth: Sequence[str | int] | None = None) -> list[Effect]:
        """Start; `auth` are the arguments of a private line's authentication: key, expiry, signature."""
        self._ping_due_s = now_s + self._timing.ping_interval_s
        if auth is None:
            return self._subscribe_all(now_s)
        self._auth_due_s = now_s + self._timing.answer_timeout_s
        return [Send(_request("auth", self._requests.next_id(), auth))]

    def control_received(self, control: Control, now_s: float) -> list[Effect]:
        """Apply a frame without a topic."""
        if control.is_pong:
            if self._unanswered_s < math.inf:  # of several pings it counts for the first one
                self._answered_s, self._unanswered_s = self._unanswered_s, math.inf
            return []
        if control.op == "auth":
            return self._auth_answered(control, now_s)
        subscription = self._answered_subscription(control)
        if subscription is None or control.success is None:
            return []
        self._requests.forget(subscription.channel)
        match subscription.phase:
            case _Phase.UNSUBSCRIBING:
                return [self._subscribe(subscription, now_s)]
            case _Phase.SUBSCRIBING:
                return [self._subscription_answered(subscription, control, now_s)]
            case _:
                return []

    def data_received(self, now_s: float) -> bool:
        """Note that data arrived on any channel; return whether `tick` may be due earlier now. Pongs are not data."""
        was_quiet = self._answered_s >= self._last_data_s
        self._last_data_s = now_s
        return was_quiet

    def resubscribe(self, channel: str, now_s: float) -> list[Effect]:
        """Request a channel's snapshot again; do nothing if one is under way, or the channel is not confirmed."""
        subscription = self._subscriptions.get(channel)
        if subscription is None or subscription.phase is not _Phase.CONFIRMED:
            return []
        subscription.phase = _Phase.UNSUBSCRIBING
        subscription.replaces = True
        return [self._send_request("unsubscribe", subscription, now_s)]

    def tick(self, now_s: float) -> list[Effect]:
        """Do what is due; call it when `next_due_s` is reached, or earlier."""
        cause = self._cause_of_loss(now_s)
        if cause is not None:
            return [Lost(cause)]
        effects = self.ping(now_s) if min(self._ping_due_s, self._proof_due_s()) <= now_s else []
        for subscription in self._subscriptions.values():
            if subscription.due_s <= now_s:
                if subscription.phase is not _Phase.REJECTED:
                    effects.append(Unanswered(subscription.channel))
                effects.append(self._subscribe(subscription, now_s))
        return effects

    def ping(self, now_s: float) -> list[Effect]:
        """Send a ping, even before it is due: its pong proves that all that Bybit sent before has arrived."""
        self._ping_due_s = now_s + self._timing.ping_interval_s
        self._unanswered_s = min(self._unanswered_s, now_s)
        return [Send(_request("ping", self._requests.next_id()))]

    def next_due_s(self) -> float:
        """Return when `tick` must be called, unless data or answers arrive before."""
        return min(
            self._auth_due_s,
            self._ping_due_s,
            self._proof_due_s(),
            self._unanswered_s + self._timing.pong_timeout_s,
            self._stale_s(),
            min((each.due_s for each in self._subscriptions.values()), default=math.inf),
        )

    def _cause_of_loss(self, now_s: float) -> str | None:
        if self._auth_due_s <= now_s:
            return "no_auth_answer"
        if self._unanswered_s + self._timing.pong_timeout_s <= now_s:
            return "no_pong"
        return "stale" if self._stale_s() <= now_s else None

    def _stale_s(self) -> float:
        since_s = self.silent_since_s
        return math.inf if self._answered_s >= since_s else since_s + self._timing.stale_after_s

    def _proof_due_s(self) -> float:
        """Return when a silent connection is to be pinged, so that a pong comes before it counts as stale."""
        since_s = self.silent_since_s
        is_proved = self._answered_s >= since_s or self._unanswered_s < math.inf
        return math.inf if is_proved else since_s + self._timing.stale_after_s / 2

    def _auth_answered(self, control: Control, now_s: float) -> list[Effect]:
        if self._auth_due_s == math.inf or control.success is None:
            return []
        self._auth_due_s = math.inf
        if not control.success:
            return [Lost("auth_rejected", control.ret_msg or "")]
        return [Authenticated(), *self._subscribe_all(now_s)]

    def _subscribe_all(self, now_s: float) -> list[Effect]:
        self._last_data_s = now_s
        return [self._subscribe(each, now_s) for each in self._subscriptions.values()]

    def _subscribe(self, subscription: _Subscription, now_s: float) -> Send:
        subscription.phase = _Phase.SUBSCRIBING
        return self._send_request("subscribe", subscription, now_s)

    def _send_request(self, op: str, subscription: _Subscription, now_s: float) -> Send:
        subscription.due_s = now_s + self._timing.answer_timeout_s
        request_id = self._requests.next_id()
        self._requests.channel_by_id[request_id] = subscription.channel
        # One channel a request: one refused channel fails all the others of its request.
        return Send(_request(op, request_id, [subscription.channel]))

    def _subscription_answered(self, subscription: _Subscription, control: Control, now_s: float) -> Effect:
        reason = control.ret_msg or ""
        repeated = "already subscribed" in reason
        if repeated and subscription.replaces:
            return Lost("resubscribe_refused", reason)
        if control.success or repeated:
            subscription.phase = _Phase.CONFIRMED
            subscription.due_s = math.inf
            return Confirmed(subscription.channel)
        subscription.phase = _Phase.REJECTED
        subscription.due_s = now_s + self._timing.rejected_retry_s
        return Rejected(subscription.channel, reason)

    def _answered_subscription(self, control: Control) -> _Subscription | None:
        waiting = self._requests.channel_by_id
        request_id = "" if control.req_id is None else str(control.req_id)
        channel = waiting.get(request_id)
        if channel is None and not self._requests.is_used(request_id):
            # Spot omits the id in refusals; the text usually names the channel, otherwise take the oldest request.
            phase = _PHASE_BY_OP.get(control.op or "")
            candidates = [name for name in waiting.values() if phase in (None, self._subscriptions[name].phase)]
            channel = _longest_named(candidates, control.ret_msg or "") or next(iter(candidates), None)
        return None if channel is None else self._subscriptions[channel]


def _longest_named(channels: Iterable[str], text: str) -> str | None:
    return max((each for each in channels if each in text), key=len, default=None)


def _request(op: str, request_id: str, arguments: Sequence[str | int] | None = None) -> str:
    request: dict[str, object] = {"req_id": request_id, "op": op}
    if arguments is not None:
        request["args"] = list(arguments)
    return json.dumps(request, separators=(",", ":"))
