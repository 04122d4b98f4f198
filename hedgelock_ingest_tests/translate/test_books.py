"""Order books: the state is the snapshot with all deltas applied, and a skipped update is recorded."""

import json
from decimal import Decimal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.frames import Frame
from hedgelock_ingest.translate.books import best, best_level
from hedgelock_ingest.translate.translator import Translator
from hedgelock_ingest_tests.builders import AT_MS, a_delta, a_note, a_snapshot
from hedgelock_ingest_tests.translate.translating import Running, values

BOOKS = Topic.MARKET_ORDER_BOOKS
FEED = "linear:orderbook.50.BTCUSDT"
PRICES = st.one_of(
    st.decimals(0, 10**20, places=12).map(lambda price: format(price, "f")),
    # Spot prices have no trailing zeros, so prices of equal length may differ in the place of the dot.
    st.builds(lambda price, places: f"{price:.{places}f}", st.floats(0, 2_000), st.integers(0, 4)),
)


def with_states(*, depth: int = 50, interval_ms: int = 1_000) -> Running:
    """Build a translator that publishes full snapshots (`state` records)."""
    return Running(Translator(state_depth=depth, state_interval_ms=interval_ms))


def test_updates_are_published_as_bybit_sent_them() -> None:
    """Levels, numbers and times are the frame's; a consumer can apply them by Bybit's own rules."""
    snapshot, delta = values(Running().take(a_snapshot(), a_delta(bids=[("61873.80", "0")])), BOOKS)

    assert snapshot["bids"] == [["61873.90", "1.5"], ["61873.80", "2"]]
    assert [delta[name] for name in ("type", "depth", "update_id", "sequence", "symbol", "category")] == [
        "delta",
        50,
        7,
        70,
        "BTCUSDT",
        "linear",
    ]
    assert (delta["bids"], delta["asks"], delta["continuous"]) == ([["61873.80", "0"]], [], True)
    assert (delta["timestamp"], delta["matched_at"]) == ("2024-05-15T04:52:42.140Z", "2024-05-15T04:52:42.138Z")


def test_skipped_update_makes_what_follows_discontinuous_until_the_next_snapshot() -> None:
    """A consumer must know from when to when the book is unusable; the gap is recorded once."""
    running = Running()
    records = running.take(
        a_snapshot(update_id=6),
        a_delta(update_id=8),
        a_delta(update_id=9),
        a_snapshot(update_id=15),
        a_delta(update_id=16),
    )

    assert [(book["update_id"], book["continuous"]) for book in values(records, BOOKS)] == [
        (6, True),
        (8, False),
        (9, False),
        (15, True),
        (16, True),
    ]
    (gap,) = values(records, Topic.INGEST_GAPS)
    assert gap["reason"] == "an update was skipped"
    assert (gap["from_sequence"], gap["to_sequence"], gap["healed"], gap["healed_by"]) == (6, 15, "partly", "snapshot")


def test_snapshot_after_skipped_updates_records_them() -> None:
    """The state is correct at once, but the updates in between never reached us."""
    records = Running().take(a_snapshot(update_id=6), a_snapshot(update_id=9))

    (gap,) = values(records, Topic.INGEST_GAPS)
    assert (gap["from_sequence"], gap["to_sequence"], gap["healed"]) == (6, 9, "partly")


def test_snapshot_with_the_next_number_opens_no_gap() -> None:
    """Bybit sends one between deltas after a problem on its side, and with number 1 after a restart."""
    records = Running().take(a_snapshot(update_id=6), a_snapshot(update_id=7), a_snapshot(update_id=1, sequence=80))

    assert [book["update_id"] for book in values(records, BOOKS)] == [6, 7, 1]
    assert values(records, Topic.INGEST_GAPS) == []


def test_updates_that_the_book_holds_already_give_no_records() -> None:
    """A snapshot sent again on subscription, an older one of a slower line, and deltas that are applied already."""
    running = Running()
    running.take(a_snapshot(update_id=6), a_delta(update_id=7))

    assert running.take(a_snapshot(update_id=7), a_snapshot(update_id=6), a_delta(update_id=7)) == []
    assert running.translator.counts["books_known"] == 3


@pytest.mark.parametrize("cut", [[], [a_note("down", FEED), a_note("up", FEED)]])
def test_renumbered_book_continues_and_a_gap_is_recorded(cut: list[Frame]) -> None:
    """Lower numbers with a later time are not old; dropping them would stop the book for good."""
    later_ms = AT_MS + 60_000
    renumbered = [a_snapshot(update_id=6, ts=later_ms), a_delta(update_id=7, ts=later_ms + 20)]
    running = Running()
    records = running.take(a_snapshot(update_id=100), a_delta(update_id=101), *cut, *renumbered)

    assert [(book["update_id"], book["continuous"]) for book in values(records, BOOKS)] == [
        (100, True),
        (101, True),
        (6, True),
        (7, True),
    ]
    (gap,) = values(records, Topic.INGEST_GAPS)
    assert (gap["from_sequence"], gap["to_sequence"], gap["healed"]) == (101, 6, "partly")
    assert running.translator.counts["books_known"] == 0


def test_renumbered_delta_is_discontinuous() -> None:
    """Its snapshot is missing, which a consumer must see."""
    later_ms = AT_MS + 60_000
    records = Running().take(
        a_snapshot(update_id=100), a_delta(update_id=50, ts=later_ms), a_snapshot(update_id=51, ts=later_ms + 20)
    )

    assert [(book["update_id"], book["continuous"]) for book in values(records, BOOKS)] == [
        (100, True),
        (50, False),
        (51, True),
    ]
    (gap,) = values(records, Topic.INGEST_GAPS)
    assert (gap["from_sequence"], gap["to_sequence"]) == (100, 51)


def test_deltas_before_any_snapshot_are_discontinuous() -> None:
    """Without a snapshot there is no state to apply them to."""
    (book,) = values(Running().take(a_delta()), BOOKS)

    assert book["continuous"] is False


def test_level_1_is_published_only_when_it_changes() -> None:
    """Bybit sends it again after three seconds without change, and its numbers are not consecutive."""
    first = a_snapshot(update_id=5, depth=1)
    records = Running().take(
        first,
        a_snapshot(update_id=5, depth=1, ts=AT_MS + 3_100),
        a_snapshot(update_id=5, sequence=51, depth=1, ts=AT_MS + 6_200),
        a_snapshot(update_id=9, depth=1),
    )

    assert [book["update_id"] for book in values(records, BOOKS)] == [5, 9]
    assert values(records, Topic.INGEST_GAPS) == []


def snapshot_times(symbol: str, start: int) -> list[int]:
    """Return the times of full snapshots in 3.5 s of updates every 10 ms, in milliseconds after AT_MS."""
    times = range(start, start + 3_500, 10)
    frames = [a_snapshot(symbol, update_id=1, ts=AT_MS + times[0])]
    frames += [a_delta(symbol, n, ts=AT_MS + at) for n, at in enumerate(times[1:], 2)]
    books = values(with_states().take(*frames), BOOKS)
    return [times[book["update_id"] - 1] for book in books if book["type"] == "state"]


def test_full_snapshot_is_published_once_in_each_interval_of_bybits_time() -> None:
    """With the first frame, then in the book's own phase, which does not depend on the start."""
    first, *others = snapshot_times("BTCUSDT", 0)

    assert first == 0
    assert others == list(range(others[0], 3_500, 1_000))
    assert snapshot_times("BTCUSDT", 10)[1:4] == others[:3]


def test_full_snapshots_of_different_books_have_different_phases() -> None:
    """All at once they would delay every other frame in the first milliseconds of a second."""
    assert len({snapshot_times(f"{coin}USDT", 0)[1] // 100 for coin in ("BTC", "ETH", "SOL", "XRP", "ADA", "DOT")}) > 2


def test_full_snapshot_is_cut_to_its_depth_best_first() -> None:
    """Bids descend and asks ascend by value, not by text."""
    bids = [("99.5", "1"), ("100", "2"), ("9", "3")]
    asks = [("1000", "1"), ("101", "2"), ("200.5", "3")]

    state = values(with_states(depth=2).take(a_snapshot(bids=bids, asks=asks)), BOOKS)[1]

    assert state["type"] == "state"
    assert state["bids"] == [["100", "2"], ["99.5", "1"]]
    assert state["asks"] == [["101", "2"], ["200.5", "3"]]


@pytest.mark.parametrize("interval_ms", [0, 1_000])
def test_full_snapshot_needs_a_continuous_book(interval_ms: int) -> None:
    """A broken book gives no full snapshot, and an interval of 0 turns them off."""
    running = with_states(interval_ms=interval_ms)
    running.take(a_snapshot(update_id=6))

    books = values(running.take(a_delta(update_id=8, ts=AT_MS + 60_000)), BOOKS)

    assert [book["type"] for book in books] == ["delta"]


prices = st.integers(1, 12).map(lambda n: f"{n * 0.5:.1f}")
changes = st.dictionaries(prices, st.sampled_from(["0", "0.000", "1", "2.50", "0.001"]), max_size=6).map(
    lambda side: list(side.items())
)
levels = st.dictionaries(prices, st.sampled_from(["1", "7.5"]), max_size=8).map(lambda side: list(side.items()))


@settings(max_examples=100, deadline=None)
@given(
    bids=levels,
    asks=levels,
    updates=st.lists(st.tuples(changes, changes), max_size=12),
    depth=st.integers(1, 6),
    saves=st.booleans(),
)
def test_full_snapshot_equals_the_book_applied_by_hand(
    bids: list[tuple[str, str]],
    asks: list[tuple[str, str]],
    updates: list[tuple[list[tuple[str, str]], list[tuple[str, str]]]],
    depth: int,
    saves: bool,
) -> None:
    """After any deltas it equals the result of Bybit's rules, level by level, also after a restart."""
    running = with_states(depth=depth, interval_ms=1)
    snapshot = values(running.take(a_snapshot(update_id=1, bids=bids, asks=asks)), BOOKS)[-1]
    by_hand = [{Decimal(p): Decimal(v) for p, v in side} for side in (bids, asks)]
    for n, sides in enumerate(updates, 2):
        if saves:
            running.translator = Translator(running.translator.save(), state_depth=depth, state_interval_ms=1)
        snapshot = values(running.take(a_delta(update_id=n, bids=sides[0], asks=sides[1])), BOOKS)[-1]
        for side, changed in zip(by_hand, sides, strict=True):
            side.update({Decimal(p): Decimal(v) for p, v in changed})
    expected = [
        sorted([(p, v) for p, v in side.items() if v], reverse=is_bids)[:depth]
        for side, is_bids in zip(by_hand, (True, False), strict=True)
    ]

    assert snapshot["type"] == "state"
    assert [[(Decimal(p), Decimal(v)) for p, v in snapshot[name]] for name in ("bids", "asks")] == expected


@given(side=st.dictionaries(PRICES, st.just("1"), max_size=9))
@example(side={"10.5": "1", "9.55": "1"})
def test_best_level_is_exact_where_floats_are_not(side: dict[str, str]) -> None:
    """Prices that differ only beyond a float's precision are still ordered correctly."""
    close = {f"{price}{digit}": "1" for price in side for digit in "19"}
    for is_bids in (True, False):
        expected = best(close, 1, highest=is_bids)
        assert ([best_level(close, highest=is_bids)] if close else []) == expected


def test_records_hold_json_and_nothing_else() -> None:
    """The sides are copied as text, so white space that Bybit might send must still give valid JSON."""
    raw = a_snapshot().replace(b'"b":[[', b'"b": [ [').replace(b'"1.5"]', b'"1.5" ]')

    (record,) = Running().take(raw)

    assert json.loads(record.value)["bids"][0] == ["61873.90", "1.5"]
