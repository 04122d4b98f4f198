"""The board: shared memory in which the processes of one round record counters and times."""

import mmap
from enum import IntEnum, auto
from pathlib import Path
from typing import Self

_INT_BYTES = 8


class Slot(IntEnum):
    """Counters of the board, 0 until they are set. Times are of CLOCK_MONOTONIC, in nanoseconds."""

    PORT = 0  # the sender's
    CONSUMER_READY = auto()
    FULL_RATE_FROM_NS = auto()
    MEASURED_FROM = auto()  # the first frame that counts for latencies
    MEASURED_FROM_NS = auto()
    ALL_SENT_NS = auto()
    LATEST_TICK_NS = auto()  # the longest delay of the sender behind its schedule
    SENDER_FAILED = auto()
    DISCONNECTIONS = auto()
    SENT = auto()
    RECEIVED = auto()  # distinct frames
    REPEATED = auto()
    UNEXPECTED = auto()  # numbers that were never sent
    STATES = auto()  # the product's own full order books
    SIDE_RECORDS = auto()  # records in the topics of dead letters and gaps
    STOP = auto()
    COUNT = auto()


class Board:
    """
    Counters, and two times for each frame: when it was sent, and when its record was first read from Kafka.

    Frames are numbered from 0. Each number has one writer, so there is no lock.
    """

    def __init__(self, path: Path, capacity: int) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _size(capacity))
        numbers = memoryview(self._map).cast("q")
        self.capacity = capacity
        self._counters = numbers[: Slot.COUNT]
        self.sent_ns = numbers[Slot.COUNT : Slot.COUNT + capacity]
        self.arrived_ns = numbers[Slot.COUNT + capacity :]

    @classmethod
    def create(cls, path: Path, capacity: int) -> Self:
        """Create the file, filled with zeros."""
        with path.open("wb") as file:
            file.truncate(_size(capacity))
        return cls(path, capacity)

    def __getitem__(self, slot: Slot) -> int:
        return self._counters[slot]

    def __setitem__(self, slot: Slot, number: int) -> None:
        self._counters[slot] = number


def _size(capacity: int) -> int:
    return (Slot.COUNT + 2 * capacity) * _INT_BYTES
