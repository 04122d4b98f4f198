"""Subscriptions that Bybit refuses, by feed and line."""

from collections.abc import Container

import structlog

from hedgelock_ingest.protocol.channels import category_and_symbol

log = structlog.get_logger(__name__)


class Refusals:
    """Reasons of refused subscriptions; each symbol is logged once, however often it is tried."""

    def __init__(self) -> None:
        """Start without refusals."""
        self._reasons: dict[str, dict[str, str]] = {}

    def within(self, feeds: Container[str]) -> dict[str, str]:
        """Return the refused ones of these feeds, with Bybit's reason."""
        return {feed: next(iter(reasons.values())) for feed, reasons in self._reasons.items() if feed in feeds}

    def has(self, feed: str, line: str) -> bool:
        """Return whether a feed is refused on a line."""
        return line in self._reasons.get(feed, ())

    def add(self, feed: str, line: str, reason: str) -> None:
        """Note that Bybit refuses a feed on a line."""
        symbol = category_and_symbol(feed)
        if all(category_and_symbol(other) != symbol for other in self._reasons):
            log.warning("channel_rejected", line=line, channel=feed.partition(":")[2], reason=reason)
        self._reasons.setdefault(feed, {})[line] = reason

    def remove(self, feed: str, line: str) -> None:
        """Note that Bybit has accepted a feed on a line."""
        reasons = self._reasons.get(feed, {})
        if reasons.pop(line, None) is not None and not reasons:
            del self._reasons[feed]
            log.info("channel_accepted", line=line, channel=feed.partition(":")[2])
