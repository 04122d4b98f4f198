"""Tests of the proof: it must find each way in which a guarantee can be broken."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.processes.evidence import Evidence, PublishedRecord
from hedgelock_ingest_tests.processes.proof import prove
from hedgelock_ingest_tests.processes.stage import staged


def _records(evidence: Evidence, topic: Topic) -> list[PublishedRecord]:
    records = evidence.records[topic]
    assert isinstance(records, list)
    return records


def _lose_a_trade(evidence: Evidence) -> None:
    trades = _records(evidence, Topic.MARKET_TRADES)
    del trades[len(trades) // 2]


def _lose_the_last_ticker(evidence: Evidence) -> None:
    # The last but one is the last that is followed by another frame on the same connection.
    tickers = _records(evidence, Topic.MARKET_DATA)
    del tickers[-2]


def _double_a_record(evidence: Evidence) -> None:
    books = _records(evidence, Topic.MARKET_ORDER_BOOKS)
    books.insert(len(books) // 2, deepcopy(books[len(books) // 2]))


def _publish_again_under_another_name(evidence: Evidence) -> None:
    trades = _records(evidence, Topic.MARKET_TRADES)
    again = deepcopy(trades[0])
    again.headers["journal-position"] = b"99999999"
    trades.append(again)


def _exchange_two_of_one_key(evidence: Evidence) -> None:
    tickers = _records(evidence, Topic.MARKET_DATA)
    first = len(tickers) // 2
    second = next(n for n in range(first + 1, len(tickers)) if tickers[n].key == tickers[first].key)
    tickers[first].value, tickers[second].value = tickers[second].value, tickers[first].value
    tickers[first].headers, tickers[second].headers = tickers[second].headers, tickers[first].headers


def _put_one_into_another_partition(evidence: Evidence) -> None:
    _records(evidence, Topic.MARKET_TRADES)[-1].partition += 1


def _change_a_price(evidence: Evidence) -> None:
    _records(evidence, Topic.MARKET_TRADES)[0].value["price"] += "1"


def _change_a_size_in_a_book(evidence: Evidence) -> None:
    deltas = [one for one in _records(evidence, Topic.MARKET_ORDER_BOOKS) if one.value["type"] == "delta"]
    next(one for one in deltas if one.value["bids"]).value["bids"][0][1] += "1"


def _change_our_own_view(evidence: Evidence) -> None:
    states = [one for one in _records(evidence, Topic.MARKET_ORDER_BOOKS) if one.value["type"] == "state"]
    states[-1].value["asks"].pop()


def _call_a_break_continuous(evidence: Evidence) -> None:
    books = _records(evidence, Topic.MARKET_ORDER_BOOKS)
    deltas = [number for number, one in enumerate(books) if one.value["type"] == "delta"]
    del books[deltas[len(deltas) // 2]]


def _change_a_ticker(evidence: Evidence) -> None:
    _records(evidence, Topic.MARKET_DATA)[-1].value["mark_price"] = "1"


def _forget_a_header(evidence: Evidence) -> None:
    del _records(evidence, Topic.MARKET_DATA)[0].headers["traceparent"]


def _record_a_gap_without_an_outage(evidence: Evidence) -> None:
    trade = _records(evidence, Topic.MARKET_TRADES)[-1]
    feed, at = "linear:publicTrade.BTCUSDT", trade.value["timestamp"]
    value = {"feed": feed, "from": at, "to": at, "from_sequence": None, "to_sequence": None, "reason": "none"}
    gap = PublishedRecord(Topic.INGEST_GAPS, 0, 0, feed, {**trade.value, **value}, dict(trade.headers))
    _records(evidence, Topic.INGEST_GAPS).append(gap)


_BREACHES: dict[str, Callable[[Evidence], None]] = {
    "neither in Kafka nor in a recorded gap": _lose_a_trade,
    "not cut, and is not in Kafka": _lose_the_last_ticker,
    "is twice in its topic": _double_a_record,
    "is 2 times in Kafka": _publish_again_under_another_name,
    "is in Kafka after": _exchange_two_of_one_key,
    "its key lies in partition": _put_one_into_another_partition,
    "the exchange sent": _change_a_price,
    "is not the exchange's at update": _change_a_size_in_a_book,
    "our own view": _change_our_own_view,
    "called continuous, and is not so": _call_a_break_continuous,
    "(ours, theirs)": _change_a_ticker,
    "headers": _forget_a_header,
    "without an outage": _record_a_gap_without_an_outage,
}


async def test_every_broken_guarantee_is_found(kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path) -> None:
    """Evidence of a good run passes, and each kind of damage to it gives the right finding."""
    async with staged(kafka, topic_prefix, tmp_path, rate=500) as stage:
        stage.stream.start()
        await stage.stream.until_stats("busy", lambda found: found["frames_acknowledged"] > 1_000)
        await stage.all_received()
        evidence = await stage.evidence()
    prove(deepcopy(evidence))
    for expected, damage in _BREACHES.items():
        damaged = deepcopy(evidence)
        damage(damaged)
        with pytest.raises(AssertionError, match="broken guarantees"):
            prove(damaged)
        assert any(expected in finding for finding in damaged.findings), (
            f"{damage.__name__}: expected a finding with {expected!r}, found {damaged.findings[:5]}"
        )
