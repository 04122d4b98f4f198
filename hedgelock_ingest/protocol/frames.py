"""Journalled frames: as read from a line, a REST answer, or a note of our own about the lines."""

from enum import StrEnum
from typing import Annotated

import msgspec


class Category(StrEnum):
    """Bybit's product families that we subscribe to; only the connection of a frame identifies its category."""

    SPOT = "spot"
    LINEAR = "linear"


class Frame(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """
    One frame, with where and when it was read.

    `origin` is the line's name, such as `linear-a` or `spot-b2`: the text before the first `-` is the category
    (`spot`, `linear`, `private`). `note` marks a note of our own, whose `raw` is JSON as well.
    `received_ns` is the wall clock in nanoseconds when the frame was read. `trace` are the 16 bytes of a
    version 4 UUID, one a frame.
    """

    origin: str
    received_ns: int
    trace: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    raw: bytes


NOTE = "note"
"""The origin of our own notes."""
PRIVATE = "private"
"""Prefix of the origin of a private line's frames."""
REST = "rest"
"""Prefix of the origin of a REST answer; its `raw` is a `RestAnswer`."""
