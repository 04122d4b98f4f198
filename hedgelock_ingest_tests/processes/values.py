"""Check of trades, liquidations and tickers against the frames that the exchange sent."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from hedgelock_ingest_tests.processes.evidence import Evidence, PublishedRecord, in_ms

_TICKER_NAMES = {
    "price": "lastPrice",
    "volume_24h": "volume24h",
    "turnover_24h": "turnover24h",
    "high_price_24h": "highPrice24h",
    "mark_price": "markPrice",
    "index_price": "indexPrice",
    "funding_rate": "fundingRate",
    "open_interest": "openInterest",
    "open_interest_value": "openInterestValue",
}
_QUOTE_NAMES = {"bid": "bid1Price", "bid_size": "bid1Size", "ask": "ask1Price", "ask_size": "ask1Size"}


def check_trades(evidence: Evidence, frames: Sequence[dict[str, Any]], records: Sequence[PublishedRecord]) -> None:
    """Compare each trade with the exchange's row of that id."""
    rows = {row["i"]: row for frame in frames for row in frame["data"]}
    for record in records:
        value, row = record.value, rows.get(record.value["trade_id"])
        if row is None:
            continue  # `prove` reports that the exchange never sent it
        found = (value["price"], value["size"], value["side"], in_ms(value["timestamp"]), value["sequence"])
        if found != (row["p"], row["v"], row["S"], row["T"], row["seq"]):
            evidence.find(f"{record}: {found}, the exchange sent {row}")


def check_liquidations(
    evidence: Evidence, frames: Sequence[dict[str, Any]], records: Sequence[PublishedRecord]
) -> list[Hashable]:
    """Return the identities of the published liquidations as in the exchange's ledger, equal ones numbered."""
    seen: Counter[Hashable] = Counter()
    identities: list[Hashable] = []
    for record in records:
        value = record.value
        content = (in_ms(value["timestamp"]), value["side"], value["size"], value["price"])
        seen[content] += 1
        identities.append((*content, seen[content]))
    return identities


def check_tickers(
    evidence: Evidence, frames: Sequence[dict[str, Any]], records: Sequence[PublishedRecord], category: str
) -> list[Hashable]:
    """
    Compare each merged ticker with the exchange's fields at that moment.

    Returns:
        The sequences of the events published, in order; repeats on a subscription are not among them, but must have
        the same values, whatever their sequence has become meanwhile.
    """
    names = _TICKER_NAMES if category == "spot" else _TICKER_NAMES | _QUOTE_NAMES
    merged_by_sequence = _merged(frames, names)
    sequences = sorted(merged_by_sequence)
    events: list[Hashable] = []
    repeats: set[tuple[int, int]] = set()
    for record in records:
        sequence, at_ms = record.value["sequence"], in_ms(record.value["timestamp"])
        place = bisect_right(sequences, sequence) - 1
        if place < 0:
            evidence.find(f"{record}: sequence {sequence}, which the exchange never sent")
            continue
        sent_ms, fields = merged_by_sequence[sequences[place]]
        differing = {name: (record.value[name], fields[name]) for name in fields if record.value[name] != fields[name]}
        if differing:
            evidence.find(f"{record}: (ours, theirs) {differing}")
        is_known = category != "spot" or record.value["quote_timestamp"] is not None
        if is_known and None in (record.value["bid"], record.value["ask"]):
            evidence.find(f"{record}: no bid or ask, although the exchange's book has both")
        if sequence == sequences[place] and at_ms == sent_ms:
            events.append(sequence)
        elif (at_ms < sent_ms and sent_ms not in evidence.wrong_times) or (sequence, at_ms) in repeats:
            evidence.find(f"{record}: {sequence} at {at_ms} repeats what was sent at {sent_ms}")
        else:
            repeats.add((sequence, at_ms))
    return events


def _merged(frames: Sequence[dict[str, Any]], names: Mapping[str, str]) -> dict[int, tuple[int, dict[str, str | None]]]:
    """Return the time and the merged fields after each frame, by sequence."""
    known: dict[str, str] = {}
    found: dict[int, tuple[int, dict[str, str | None]]] = {}
    for frame in frames:
        if frame["type"] == "snapshot":
            known = {}
        known |= frame["data"]
        found[frame["cs"]] = (frame["ts"], {ours: known.get(theirs) or None for ours, theirs in names.items()})
    return found
