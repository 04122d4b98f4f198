"""The interface of every channel's stream: events with an identity, and snapshots."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

type Identity = int | tuple[int, ...] | tuple[int, str, str, str] | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ChannelEvent:
    """A frame's text and its identities: a book's `u`, trade ids, a ticker's `cs`."""

    text: str
    identity: Identity


class ChannelStream(ABC):
    """
    The events of one channel.

    `interval_s` is Bybit's push interval; for trades and liquidations the mean time between frames.
    """

    kind: str
    is_random: bool = False

    def __init__(self, category: str, channel: str, interval_s: float) -> None:
        self.category = category
        self.channel = channel
        self.interval_s = interval_s

    @abstractmethod
    def advance(self, now_ms: int, *, must: bool) -> ChannelEvent | None:
        """Advance the market and return the event to send, if any; with `must` there is always one."""

    def snapshot(self, now_ms: int) -> ChannelEvent | None:
        """Return the first event for a new subscriber, if there is one."""
        return None

    def repeat(self, now_ms: int) -> ChannelEvent | None:
        """Return the event to repeat when nothing has changed for a while, if there is one."""
        return None


def trade_id(category: str, number: int) -> str:
    """Write a trade's id: a UUID on linear, digits on spot."""
    if category == "spot":
        return str(number)
    digits = f"{number:032x}"
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{_VARIANTS[digits[16]]}{digits[17:20]}-{digits[20:]}"


_VARIANTS = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
