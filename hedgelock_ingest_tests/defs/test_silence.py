"""What is told of a topic without records follows from what was there, what runs, and what gaps are recorded."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from hedgelock_ingest.audit.gaps import FeedProof
from hedgelock_ingest.defs.audit.proven import Proven
from hedgelock_ingest.defs.audit.silence import Flow, Silence, resting_silences, seen_in, silent_since, steady_silences
from hedgelock_ingest.models.findings import Gap
from hedgelock_ingest.models.topics import Topic

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
KEY = "linear:BTCUSDT"
EXPECTED = {Topic.MARKET_DATA: {KEY}}


def minutes(count: float) -> datetime:
    """Give the time so many minutes before noon."""
    return NOON - timedelta(minutes=count)


def milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def a_flow(*, up: float | None = None, first: float | None = None, last: float | None = None) -> Flow:
    """Build an hour up to noon, in minutes before it: when a run came up, market data's first and last record."""
    firsts = {} if first is None else {Topic.MARKET_DATA.value: milliseconds(minutes(first))}
    lasts = {} if last is None else {Topic.MARKET_DATA.value: {KEY: milliseconds(minutes(last))}}
    span = Proven(minutes(60), NOON, {}, firsts, lasts)
    return Flow(NOON, None if up is None else minutes(up), [span])


def a_gap(begin: datetime, end: datetime, feed: str = "linear:tickers.BTCUSDT") -> Gap:
    """Build the record of a hole."""
    return Gap.model_validate(
        {
            "source": "collector",
            "trace_id": uuid.UUID(int=4),
            "timestamp": end,
            "feed": feed,
            "from": begin,
            "to": end,
            "from_sequence": None,
            "to_sequence": None,
            "healed": "no",
            "healed_by": None,
            "missing": "all",
            "reason": "no live line: stopped",
        }
    )


def silences(flow: Flow, *gaps: Gap) -> list[Silence]:
    return list(steady_silences(Topic.MARKET_DATA, {KEY}, flow, gaps))


@pytest.mark.parametrize(
    ("flow", "told", "is_error"),
    [
        pytest.param(a_flow(), "no record yet", False, id="never-started"),
        pytest.param(a_flow(up=0.5), "no record yet", False, id="just-started"),
        pytest.param(a_flow(up=10), f"{KEY}: no record at all; a run of the job stream is up since", True, id="mute"),
        pytest.param(
            a_flow(last=30, first=60), f"{KEY}: no record since 2026-01-01 11:30:00 UTC; no run", True, id="died"
        ),
        pytest.param(a_flow(last=900), f"{KEY}: no record since 2025-12-31 21:00:00 UTC; no run", True, id="long-ago"),
    ],
)
def test_silence_is_told_with_what_to_look_at(flow: Flow, told: str, is_error: bool) -> None:
    """Nothing there to be missed is a warning; all else is an error."""
    [silence] = silences(flow)
    assert silence.told.startswith(told)
    assert silence.is_error == is_error


def test_topic_that_flows_is_not_silent() -> None:
    """A feed may be silent for as long as a line may be without data."""
    assert silences(a_flow(up=10, first=10, last=0.2)) == []


def test_silence_that_a_gap_covers_is_told_by_the_gap() -> None:
    """A hole is told once; what of it no gap covers stays a silence."""
    flow = a_flow(up=60, first=60, last=30)
    assert silences(flow, a_gap(minutes(30), NOON)) == []
    assert silences(flow, a_gap(minutes(30), minutes(15)), a_gap(minutes(15), NOON)) == []
    assert len(silences(flow, a_gap(minutes(30), minutes(15)))) == 1
    assert len(silences(flow, a_gap(minutes(30), NOON, feed="spot:tickers.BTCUSDT"))) == 1


@pytest.mark.parametrize(("flow", "count"), [(a_flow(first=55), 1), (a_flow(first=20), 0), (a_flow(), 1)])
def test_hour_without_a_trade_warns_unless_it_has_just_begun(flow: Flow, count: int) -> None:
    """Trades may rest, but not for an hour in which prices move."""
    found = list(resting_silences(Topic.MARKET_TRADES, {KEY}, flow))
    assert len(found) == count
    assert not any(silence.is_error for silence in found)
    assert list(resting_silences(Topic.MARKET_TRADES, set(), flow)) == []


def test_next_audit_reads_a_silence_again() -> None:
    """What was late may have come, and the gap may have been recorded."""
    assert silent_since(EXPECTED, a_flow(last=7).spans) == minutes(7)
    assert silent_since(EXPECTED, a_flow(last=0.1).spans) is None
    assert silent_since(EXPECTED, []) is None


def test_silence_of_a_symbol_that_is_no_longer_carried_is_not_read_again() -> None:
    """Else each audit would read the whole hour, for as long as the symbol is remembered."""
    assert silent_since({Topic.MARKET_DATA: {"spot:ETHUSDT"}}, a_flow(last=7).spans) is None


def test_last_record_stays_known_when_it_is_older_than_the_hour() -> None:
    """Who comes after a night without a stream reads since when there is no record."""
    earlier = a_flow(last=900).spans
    feed = FeedProof(Topic.MARKET_DATA, "spot:BTCUSDT", records=2, first_ms=5, last_ms=9)
    known = {KEY: milliseconds(minutes(900))}
    assert seen_in(Topic.MARKET_DATA, [], earlier) == (None, known)
    assert seen_in(Topic.MARKET_DATA, [feed], earlier) == (5, {**known, "spot:BTCUSDT": 9})
    assert seen_in(Topic.MARKET_TRADES, [feed], earlier) == (None, {})
