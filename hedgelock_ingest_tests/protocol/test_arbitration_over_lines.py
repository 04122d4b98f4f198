"""Arbitration over random lines accepts the exchange's sequence: each frame once, in order, every gap reported."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgelock_ingest.protocol.arbitration import DEFAULT_TIMING, ChannelArbitration
from hedgelock_ingest.protocol.book_arbitration import BookArbitration
from hedgelock_ingest.protocol.messages import Control, DataMessage, decode
from hedgelock_ingest_tests.builders import AT_MS, a_delta, a_liquidation, a_snapshot, a_ticker, a_trade

type Payload = tuple[str, int]
"""("state", n) for the snapshot at a subscription after n events, ("event", n) for the n-th event."""


@dataclass(frozen=True)
class Kind:
    """A kind of channel: encoders of its n-th event and of the snapshot at a subscription."""

    first_copy: Callable[[], ChannelArbitration[int, Payload]]
    event: Callable[[int, int], bytes]
    state: Callable[[int, int], bytes] | None


KINDS = {
    "trades": Kind(ChannelArbitration, lambda n, ms: a_trade(f"t{n}", f"u{n}", ts=ms), None),
    "liquidations": Kind(ChannelArbitration, lambda n, ms: a_liquidation(rows=2, ts=ms, T=ms - 100), None),
    "tickers": Kind(
        ChannelArbitration,
        lambda n, ms: a_ticker(kind="delta", cs=n, ts=ms, fields={}),
        lambda n, ms: a_ticker(cs=n, ts=ms),
    ),
    "level 1": Kind(
        ChannelArbitration,
        lambda n, ms: a_snapshot(update_id=n, ts=ms, depth=1),
        lambda n, ms: a_snapshot(update_id=n, ts=ms, depth=1),
    ),
    "level 50": Kind(
        BookArbitration,
        lambda n, ms: a_delta(update_id=n, ts=ms),
        lambda n, ms: a_snapshot(update_id=n, ts=ms),
    ),
}


@dataclass(frozen=True)
class RandomConnection:
    """One connection, in milliseconds: subscription time, duration, delays of frames and of the confirmation."""

    subscribed: int
    lasts: int
    delay: int
    confirmed_after: int
    jitters: tuple[int, ...]


@dataclass
class Observed:
    """Result: accepted payloads, with None for each reported gap."""

    accepted: list[Payload | None] = field(default_factory=list)
    unfounded: list[str] = field(default_factory=list)
    late: int = 0


connections = st.builds(
    RandomConnection,
    subscribed=st.integers(0, 12_000),
    lasts=st.integers(50, 9_000),
    delay=st.integers(0, 400),
    confirmed_after=st.integers(0, 300),
    jitters=st.lists(st.integers(0, 60), min_size=1, max_size=6).map(tuple),
)
pauses_ms = st.lists(st.sampled_from([1, 5, 20, 100, 100, 400, 2_500]), min_size=1, max_size=40)


def message_of(raw: bytes) -> DataMessage:
    """Decode a frame that is known to be data."""
    message = decode(raw)
    assert not isinstance(message, Control)
    return message


def deliver(kind: Kind, event_times: list[int], lines: list[RandomConnection]) -> Observed:
    """Let the exchange send its events to the connections, and offer what arrives in the order of arrival."""
    copy, seen = kind.first_copy(), Observed()
    arrivals: list[tuple[int, int, int, str, int, int]] = []
    for number, line in enumerate(lines):
        ends, at, order = line.subscribed + line.lasts, 0, 0
        arrivals.append((line.subscribed, number, -1, "open", 0, 0))
        arrivals.append((line.subscribed + line.delay + line.confirmed_after, number, 999, "confirm", 0, ends))
        sent = [("event", n, ms) for n, ms in enumerate(event_times, 1) if ms > line.subscribed]
        if kind.state is not None:
            past = sum(ms <= line.subscribed for ms in event_times)
            sent.insert(0, ("state", past, line.subscribed))
        for order, (what, n, ms) in enumerate(sent):
            at = max(at, ms + line.delay + line.jitters[order % len(line.jitters)])
            arrivals.append((at, number, order, what, n, ms))
        arrivals.append((ends, number, 10_000, "close", 0, 0))
    confirmed: dict[int, float] = {}
    opened: set[int] = set()
    for at, number, _, what, n, ms in sorted(arrivals):
        now_s, is_over = at / 1000, at >= lines[number].subscribed + lines[number].lasts
        if what == "open":
            opened.add(number)
            copy.line_opened(number)
        elif what == "close":
            opened.discard(number)
            covered = [c for c in opened if c in confirmed and confirmed[c] + DEFAULT_TIMING.join_margin_s < now_s]
            line_end = copy.line_closed(number, received_s=now_s, now_s=now_s)
            if line_end.has_gap:
                seen.accepted.append(None)
                if covered:
                    seen.unfounded.append(f"line {number} ended at {at}, but lines {covered} had all later frames")
            seen.accepted += [offer.payload for offer in line_end.accepted]
        elif not is_over and what == "confirm":
            confirmed[number] = now_s
            copy.confirmed(number, now_s)
        elif not is_over:
            write = kind.event if what == "event" else kind.state
            assert write is not None
            offers = copy.offer(number, message_of(write(n, AT_MS + ms)), (what, n), now_s)
            seen.accepted += [offer.payload for offer in offers]
    seen.late = copy.late
    return seen


def check_sequence(kind: Kind, accepted: list[Payload | None]) -> None:
    """Fail unless events are consecutive wherever no gap is reported."""
    position: int | None = None
    is_after_gap = True
    for payload in accepted:
        if payload is None:
            is_after_gap = True
            continue
        what, n = payload
        if what == "state":
            assert is_after_gap or position == n, f"state {n} after {position} without a gap"
            if position is not None and n < position:  # proves that nothing is missing
                is_after_gap = False
                continue
        else:
            assert position is None or n > position, f"event {n} after {position}"
            if kind.state is None and is_after_gap:
                position = n - 1
            assert position == n - 1, f"event {n} does not follow {position}"
        position, is_after_gap = n, False


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=100, deadline=None)
@given(pauses=pauses_ms, lines=st.lists(connections, min_size=1, max_size=5))
def test_accepted_frames_are_the_exchanges_sequence(
    name: str, pauses: list[int], lines: list[RandomConnection]
) -> None:
    """However lines overlap, lag, end and join: no frame twice, none out of order, none missing without a gap."""
    kind, times = KINDS[name], [100 + sum(pauses[: n + 1]) for n in range(len(pauses))]

    seen = deliver(kind, times, lines)

    check_sequence(kind, seen.accepted)
    assert seen.unfounded == []


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=40, deadline=None)
@given(pauses=pauses_ms, other=connections, delay=st.integers(0, 400))
def test_line_beside_a_lasting_one_changes_nothing(
    name: str, pauses: list[int], other: RandomConnection, delay: int
) -> None:
    """While one line lasts, another one that opens and ends neither adds nor hides frames."""
    kind, times = KINDS[name], [2_000 + sum(pauses[: n + 1]) for n in range(len(pauses))]
    lasting = RandomConnection(subscribed=0, lasts=200_000, delay=delay, confirmed_after=0, jitters=(0,))
    later = RandomConnection(1_500 + other.subscribed, other.lasts, other.delay, other.confirmed_after, other.jitters)

    seen = deliver(kind, times, [lasting, later])

    events = [payload for payload in seen.accepted if payload is not None and payload[0] == "event"]
    assert [n for _, n in events] == list(range(1, len(times) + 1))
    assert seen.late == 0
    assert seen.accepted.count(None) <= 1  # at the end of the last line
