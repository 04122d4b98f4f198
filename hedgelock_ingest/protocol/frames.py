"""What is journalled: a frame as it was read from a line, or a note of our own about the lines."""

from enum import StrEnum
from typing import Annotated

import msgspec


class Category(StrEnum):
    """Bybit's product families that we subscribe to; a frame does not name it, only its connection does."""

    SPOT = "spot"
    LINEAR = "linear"


class Frame(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """
    One frame, with where and when it was read.

    `origin` is the line's name, such as `linear-a` or `spot-b2`: the text before the first `-` is the category
    (`spot`, `linear`, `private`). `note` stands for a note of our own, whose `raw` is JSON as well.
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
"""What the origin of a private line's frames begins with."""
REST = "rest"
"""What the origin of a REST answer begins with; its `raw` is a `RestAnswer`."""
