"""What gap filling is to request, as the receiver reports it, and when."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from hedgelock_ingest.protocol.channels import is_trades_feed
from hedgelock_ingest.protocol.rest_messages import PRIVATE_FEED_BY_PART, Part
from hedgelock_ingest.translate.absence import REST_LAG_MS

_PART_BY_PRIVATE_FEED = {feed: part for part, feed in PRIVATE_FEED_BY_PART.items()}
_PARTS_WITHOUT_STREAM = (Part.COLLATERAL, Part.LOANS)
"""No stream carries them, so they are requested whenever a private feed comes up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GapFillTiming:
    """
    Delays and attempts of gap filling, in seconds.

    REST may lag behind the stream, so what has a gap is requested again `confirm_s` after its feed has come up, and a
    list of what is present once more `second_list_s` later. The account is requested until Bybit answers. Its channels
    come up one after the other; `gather_s` waits for all of them before the first request, and `step_s` more for each
    part that is less urgent. An answer with rows that cannot be decoded is requested `undecodable_attempts` times; each
    time such a row becomes a dead letter.

    Trades are requested every `trades_interval_s` from the moment at which their line is lost, since Bybit lists only
    the last ones, and given up `trades_within_s` after it is back; while it is lost, a request without an answer gives
    way to the next one after `stand_in_timeout_s`.
    """

    gather_s: float = 0.2
    step_s: float = 0.02
    confirm_s: float = REST_LAG_MS / 1000
    second_list_s: float = 1.0
    retry_initial_s: float = 1.0
    retry_max_s: float = 10.0
    refused_retry_s: float = 60.0
    limited_retry_s: float = 1.0
    trades_interval_s: float = 0.5
    trades_within_s: float = 60.0
    stand_in_timeout_s: float = 5.0
    undecodable_attempts: int = 10


@dataclass(slots=True)
class GapFillStats:
    """Counters of gap filling; `troubles` maps unavailable parts of the account to the reason."""

    answers: int = 0
    failures: int = 0
    given_up: int = 0
    troubles: dict[str, str] = field(default_factory=dict)


class GapFillQueue:
    """
    What is to be requested: parts of the account, and trades of feeds; the receiver reports which feeds are live.

    The epoch of a feed changes whenever it gains or loses its live line; an answer counts only in the epoch in which it
    was requested.
    """

    def __init__(self, feeds_with_gap: Iterable[str] = ()) -> None:
        """Start with the feeds that have a gap: frames of an earlier process are in the journal."""
        self.changed = asyncio.Event()
        self._has_risen = False
        self._parts: list[Part] = []
        self._feeds_with_gap = set(feeds_with_gap)
        self._live: set[str] = set()
        self._feeds: list[str] = []
        self._epochs: dict[str, int] = {}
        self._want_trades(sorted(self._feeds_with_gap))

    def went_up(self, feeds: Sequence[str]) -> None:
        """Request the missing data of these feeds, as far as REST has it."""
        for feed in feeds:
            self._begin_epoch(feed)
            if feed in _PART_BY_PRIVATE_FEED:
                wanted = (_PART_BY_PRIVATE_FEED[feed], *_PARTS_WITHOUT_STREAM)
                self._parts += [part for part in wanted if part not in self._parts]
        self._live.update(feeds)
        self._has_risen = True
        self._want_trades(feeds)

    def went_down(self, feeds: Sequence[str]) -> None:
        """Request nothing but trades of these feeds until they come up again."""
        for feed in feeds:
            self._begin_epoch(feed)
            part = _PART_BY_PRIVATE_FEED.get(feed)
            if part in self._parts:
                self._parts.remove(part)
        self._live.difference_update(feeds)
        self._feeds_with_gap.update(feeds)
        self._want_trades(feeds)

    def is_live(self, feed: str) -> bool:
        """Return whether a line carries the feed."""
        return feed in self._live

    def take_rise(self) -> bool:
        """Return whether a feed has come up since the last call: Bybit can be reached."""
        has_risen, self._has_risen = self._has_risen, False
        return has_risen

    def take_parts(self) -> list[Part]:
        """Remove and return the parts of the account that are to be requested."""
        parts, self._parts = self._parts, []
        return parts

    def take_feeds(self) -> list[str]:
        """Remove and return the feeds whose trades are to be requested, live or not."""
        feeds, self._feeds = self._feeds, []
        return feeds

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left to request."""
        return not (self._parts or self._feeds)

    def epoch(self, feed: str) -> int:
        """Return the epoch of a feed."""
        return self._epochs.get(feed, 0)

    def _want_trades(self, feeds: Iterable[str]) -> None:
        wanted = [feed for feed in feeds if is_trades_feed(feed) and feed in self._feeds_with_gap]
        self._feeds += [feed for feed in wanted if feed not in self._feeds]
        self.changed.set()

    def _begin_epoch(self, feed: str) -> None:
        self._epochs[feed] = self.epoch(feed) + 1
