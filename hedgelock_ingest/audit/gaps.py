"""The recorded gaps, and the verification that nothing else is missing."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from hedgelock_ingest.errors import FrameError
from hedgelock_ingest.kafka.consumer import ConsumedRecord, read_span
from hedgelock_ingest.kafka.headers import RecordName
from hedgelock_ingest.kafka.topic_admin import kafka_name
from hedgelock_ingest.models.gaps_and_dead_letters import Gap
from hedgelock_ingest.models.times import unix_ms, utc_time
from hedgelock_ingest.models.topics import STEADY, Topic
from hedgelock_ingest.settings import Settings

LONGEST_SILENCE_MS = 15_000
"""A line without data for `BYBIT_STALE_AFTER` (10 s) is replaced, so a steady feed is never silent for longer."""

VERIFIED_TOPICS = (Topic.MARKET_DATA, Topic.MARKET_TRADES, Topic.MARKET_ORDER_BOOKS, Topic.MARKET_LIQUIDATIONS)


async def list_gaps(settings: Settings) -> list[Gap]:
    """
    Read the recorded gaps, oldest first; none where the topic does not exist yet.

    Raises:
        KafkaUnavailable: No answer, or not in time.
    """
    gaps = [
        Gap.model_validate_json(record.value)
        async for group in read_span(settings, [Topic.INGEST_GAPS])
        for record in group
        if record.value is not None
    ]
    return sorted(gaps, key=lambda gap: (gap.from_, gap.feed))


def select(gaps: Sequence[Gap], *, since: datetime | None = None, feed: str | None = None) -> list[Gap]:
    """
    Return some of the gaps.

    Args:
        gaps: All gaps.
        since: Only those that ended at or after it.
        feed: Only those of feeds with this prefix, such as `linear:publicTrade`.
    """
    return [gap for gap in gaps if (since is None or gap.to >= since) and (feed is None or gap.feed.startswith(feed))]


@dataclass(slots=True)
class FeedVerification:
    """
    Verification of one key: counts, sequences as Bybit numbers them, and findings against completeness.

    `first_ms` and `last_ms` are Kafka's times of the first record and the last. `doubled` and `out_of_order` compare
    the record names given by the journal; `unexplained` are missing updates or silences that no recorded gap explains.
    """

    topic: Topic
    key: str
    records: int = 0
    first_ms: int = 0
    last_ms: int = 0
    first_sequence: int | None = None
    last_sequence: int | None = None
    longest_silence_ms: int = 0
    doubled: int = 0
    out_of_order: int = 0
    gaps: int = 0
    unexplained: list[str] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether nothing is missing apart from the recorded gaps."""
        return not (self.unexplained or self.doubled or self.out_of_order)


@dataclass(frozen=True, slots=True)
class Verification:
    """Result of `verify` between two times; complete when every feed is."""

    since: datetime
    until: datetime
    feeds: list[FeedVerification]
    gaps: list[Gap]

    @property
    def is_complete(self) -> bool:
        """Whether there were records, and nothing is missing apart from the recorded gaps."""
        return bool(self.feeds) and all(feed.is_complete for feed in self.feeds)


class _Value(msgspec.Struct):
    timestamp: datetime
    symbol: str
    category: str
    sequence: int | None = None
    type: str = ""
    depth: int = 0
    update_id: int = 0
    continuous: bool = True


_value = msgspec.json.Decoder(_Value)


async def verify(settings: Settings, *, since: datetime, until: datetime) -> Verification:
    """
    Read the market topics between two times, and check that nothing is missing apart from the recorded gaps.

    An order book's updates are numbered consecutively; tickers and books are never silent for long; within a partition
    the names of one journal's records only rise, so none is doubled.

    Raises:
        KafkaUnavailable: No answer, or not in time.
        FrameError: A topic holds a record of a foreign format.
    """
    gaps = [gap for gap in await list_gaps(settings) if gap.to >= since and gap.from_ <= until]
    verifier = _Verifier({kafka_name(settings, topic): topic for topic in VERIFIED_TOPICS}, gaps)
    span: AsyncGenerator[Sequence[ConsumedRecord]] = read_span(
        settings, VERIFIED_TOPICS, from_ms=unix_ms(since), to_ms=unix_ms(until)
    )
    async for group in span:
        for record in group:
            verifier.take(record)
    return Verification(since, until, verifier.finish(), gaps)


class _Verifier:
    def __init__(self, topics: Mapping[str, Topic], gaps: Sequence[Gap]) -> None:
        self._topics = topics
        self._gaps = gaps
        self._verifications: dict[tuple[Topic, str], FeedVerification] = {}
        self._names: dict[tuple[str, int, bytes], RecordName] = {}
        self._updates: dict[tuple[str, int], int] = {}
        self._last_ms: dict[tuple[Topic, str], int] = {}

    def take(self, record: ConsumedRecord) -> None:
        topic, key = self._topics[record.topic], (record.key or b"").decode(errors="replace")
        verification = self._verifications.setdefault((topic, key), FeedVerification(topic, key))
        verification.first_ms = verification.first_ms if verification.records else record.timestamp_ms
        verification.last_ms = record.timestamp_ms
        verification.records += 1
        self._check_name(verification, record)
        try:
            value = _value.decode(record.value or b"")
        except msgspec.DecodeError as error:
            raise FrameError(
                f"topic={record.topic} partition={record.partition} offset={record.offset} is not a HedgeLock record"
            ) from error
        sequence = value.update_id if topic is Topic.MARKET_ORDER_BOOKS else value.sequence
        if sequence is not None:
            verification.first_sequence = (
                sequence if verification.first_sequence is None else verification.first_sequence
            )
            verification.last_sequence = sequence
        if topic is Topic.MARKET_ORDER_BOOKS:
            self._check_update(verification, value)
        self._check_silence(verification, record.timestamp_ms)

    def finish(self) -> list[FeedVerification]:
        for verification in self._verifications.values():
            verification.gaps = sum(key_of(gap.feed) == verification.key for gap in self._gaps)
        return sorted(self._verifications.values(), key=lambda verification: (verification.topic, verification.key))

    def _check_name(self, verification: FeedVerification, record: ConsumedRecord) -> None:
        if record.name is None or record.journal_id is None:
            return
        place = record.topic, record.partition, record.journal_id
        last = self._names.get(place)
        if last is not None and record.name <= last:
            verification.doubled += record.name == last
            verification.out_of_order += record.name < last
        else:
            self._names[place] = record.name

    def _check_update(self, verification: FeedVerification, value: _Value) -> None:
        book = verification.key, value.depth
        if value.type == "state":
            return
        last = self._updates.get(book)
        is_next = last is None or value.type == "snapshot" or value.update_id == last + 1
        if not is_next and not self._is_explained(verification.key, "orderbook", value.timestamp):
            verification.unexplained.append(f"update {value.update_id} follows {last} at {value.timestamp:%H:%M:%S.%f}")
        self._updates[book] = value.update_id

    def _check_silence(self, verification: FeedVerification, at_ms: int) -> None:
        last_ms = self._last_ms.get((verification.topic, verification.key), at_ms)
        silence_ms = at_ms - last_ms
        verification.longest_silence_ms = max(verification.longest_silence_ms, silence_ms)
        if verification.topic in STEADY and silence_ms > LONGEST_SILENCE_MS:
            ended = utc_time(at_ms)
            if not self._is_explained(verification.key, "", ended, since_ms=last_ms):
                verification.unexplained.append(f"{silence_ms / 1000:.1f} s of silence before {ended:%H:%M:%S}")
        self._last_ms[verification.topic, verification.key] = at_ms

    def _is_explained(self, key: str, channel: str, at: datetime, *, since_ms: int | None = None) -> bool:
        began = at if since_ms is None else utc_time(since_ms)
        return any(
            key_of(gap.feed) == key and channel in gap.feed and gap.from_ <= at and gap.to >= began
            for gap in self._gaps
        )


def key_of(feed: str) -> str:
    """Return the key of a feed's records: `linear:BTCUSDT` for `linear:orderbook.50.BTCUSDT`."""
    category, _, channel = feed.partition(":")
    return f"{category}:{channel.rpartition('.')[2]}"
