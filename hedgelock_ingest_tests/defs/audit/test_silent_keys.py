"""Reports on topics without records depend on earlier records, running runs and recorded gaps."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from hedgelock_ingest.audit.gaps import FeedVerification
from hedgelock_ingest.defs.audit.silent_keys import AuditWindow, Silence, idle_silences, steady_silences
from hedgelock_ingest.models.gaps_and_dead_letters import Gap
from hedgelock_ingest.models.topics import Topic

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
KEY = "linear:BTCUSDT"


def minutes(count: float) -> datetime:
    """Return the time so many minutes before noon."""
    return NOON - timedelta(minutes=count)


def milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def a_window(
    *, up: float | None = None, first: float | None = None, last: float | None = None, has_run: bool = True
) -> AuditWindow:
    """Build 20 minutes up to noon; start of a run, first and last record of market data are in minutes before it."""
    feeds = []
    if first is not None and last is not None:
        first_ms, last_ms = milliseconds(minutes(first)), milliseconds(minutes(last))
        feeds.append(FeedVerification(Topic.MARKET_DATA, KEY, records=2, first_ms=first_ms, last_ms=last_ms))
    return AuditWindow(minutes(20), NOON, feeds, None if up is None else minutes(up), has_run)


def a_gap(begin: datetime, end: datetime, feed: str = "linear:tickers.BTCUSDT") -> Gap:
    """Build the record of a gap."""
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


def silences(window: AuditWindow, *gaps: Gap) -> list[Silence]:
    return list(steady_silences(Topic.MARKET_DATA, {KEY}, window, gaps))


@pytest.mark.parametrize(
    ("window", "report", "is_error"),
    [
        pytest.param(a_window(has_run=False), f"{KEY}: no record yet", False, id="never-started"),
        pytest.param(a_window(up=0.5), f"{KEY}: no record yet", False, id="just-started"),
        pytest.param(a_window(up=10), f"{KEY}: no record in the last 20 minutes; a run of", True, id="no-record"),
        pytest.param(
            a_window(first=20, last=15), f"{KEY}: no record since 2026-01-01 11:45:00 UTC; no run", True, id="ended"
        ),
        pytest.param(a_window(), f"{KEY}: no record in the last 20 minutes; no run", True, id="long-ago"),
    ],
)
def test_silence_is_reported_with_where_to_look(window: AuditWindow, report: str, is_error: bool) -> None:
    """Without any earlier record it is a warning, otherwise an error."""
    [silence] = silences(window)
    assert silence.report.startswith(report)
    assert silence.is_error == is_error


def test_key_without_records_beside_others_is_an_error_also_for_a_stream_outside_dagster() -> None:
    """`hedgelock-ingest run` has no run in Dagster; the records of other keys show that a stream is up."""
    [silence] = steady_silences(Topic.MARKET_DATA, {"linear:ETHUSDT"}, a_window(first=20, last=0, has_run=False), [])

    assert silence.report.startswith("linear:ETHUSDT: no record in the last 20 minutes")
    assert silence.is_error


def test_topic_that_flows_is_not_silent() -> None:
    """A feed may be silent for as long as a line may receive no data."""
    assert silences(a_window(up=10, first=10, last=0.2)) == []


def test_silence_covered_by_a_gap_is_not_reported_again() -> None:
    """The gap reports it; a part outside the gaps is still reported as silence."""
    window = a_window(up=60, first=20, last=15)
    assert silences(window, a_gap(minutes(15), NOON)) == []
    assert silences(window, a_gap(minutes(15), minutes(5)), a_gap(minutes(5), NOON)) == []
    assert len(silences(window, a_gap(minutes(15), minutes(5)))) == 1
    assert len(silences(window, a_gap(minutes(15), NOON, feed="spot:tickers.BTCUSDT"))) == 1
    assert silences(a_window(up=60), a_gap(minutes(300), NOON)) == []


@pytest.mark.parametrize(
    ("window", "count"), [(a_window(first=19, last=0), 1), (a_window(first=10, last=0), 0), (a_window(), 1)]
)
def test_window_without_a_trade_warns_unless_it_has_just_begun(window: AuditWindow, count: int) -> None:
    """Trades may be idle, but not for 20 minutes in which prices change."""
    found = list(idle_silences(Topic.MARKET_TRADES, {KEY}, window))
    assert len(found) == count
    assert not any(silence.is_error for silence in found)
    assert list(idle_silences(Topic.MARKET_TRADES, set(), window)) == []
