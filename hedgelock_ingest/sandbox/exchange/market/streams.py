"""What every channel has in common: events with an identity, now and then a snapshot."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

type Identity = int | tuple[int, ...] | tuple[int, str, str, str] | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """A frame's text and what its readers can know it by: a book's `u`, trade ids, a ticker's `cs`."""

    text: str
    identity: Identity


class Stream(ABC):
    """
    What one channel carries.

    `interval_s` is Bybit's push interval; for trades and liquidations the mean time between frames.
    """

    kind: str
    is_random: bool = False

    def __init__(self, category: str, channel: str, interval_s: float) -> None:
        self.category = category
        self.channel = channel
        self.interval_s = interval_s

    @abstractmethod
    def advance(self, now_ms: int, *, must: bool) -> Event | None:
        """Let the market move on and say what there is to send; with `must` there is always something."""

    def snapshot(self, now_ms: int) -> Event | None:
        """Return what a new subscriber is sent first, if anything."""
        return None

    def repeat(self, now_ms: int) -> Event | None:
        """Return what is sent again for want of news, if anything."""
        return None


def trade_id(category: str, number: int) -> str:
    """Write a trade's id: a UUID on linear, digits on spot."""
    if category == "spot":
        return str(number)
    digits = f"{number:032x}"
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{_VARIANTS[digits[16]]}{digits[17:20]}-{digits[20:]}"


_VARIANTS = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
