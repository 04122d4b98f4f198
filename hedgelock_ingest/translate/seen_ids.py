"""Identities of the rows published of a feed, as far back as copies can still arrive."""

import re
from collections import deque
from collections.abc import Iterable, Sequence

import msgspec

from hedgelock_ingest.translate.formatting import uuid_texts_in

_CHUNK_SIZE = 250
_FULL_CHUNKS = 5
MIN_REMEMBERED = _CHUNK_SIZE * _FULL_CHUNKS
"""Minimum kept: more than REST can return (1,000 linear, 60 spot), so that filling a gap duplicates nothing."""

_encode = msgspec.msgpack.Encoder().encode
_is_uuid = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}").fullmatch


class SeenIds:
    """
    The last identities of a feed, in chunks; the oldest chunk is dropped as one.

    Full chunks are also kept encoded, as they are saved: encoding tens of thousands of them each time would block
    the event loop. While `keeps_all` is set, no chunk is dropped: REST may still return these rows.
    """

    __slots__ = ("_encoded", "_filling", "_full", "keeps_all", "known")

    def __init__(self, chunks: Iterable[Sequence[str] | bytes] = (), *, keeps_all: bool = False) -> None:
        """Continue from what `save` returned."""
        self.keeps_all = keeps_all
        self.known: set[str] = set()
        self._filling: list[str] = []
        self._full: deque[list[str]] = deque()
        self._encoded: deque[msgspec.Raw] = deque()
        for chunk in chunks:
            for identity in _unpacked(chunk):
                self.add(identity)

    def add(self, identity: str) -> None:
        """Add an identity that is not known yet."""
        self.known.add(identity)
        self._filling.append(identity)
        if len(self._filling) == _CHUNK_SIZE:
            self._full.append(self._filling)
            self._encoded.append(msgspec.Raw(_encode(_packed(self._filling))))
            self._filling = []
            while len(self._full) > _FULL_CHUNKS and not self.keeps_all:
                self.known.difference_update(self._full.popleft())
                self._encoded.popleft()

    def save(self) -> list[msgspec.Raw]:
        """Return the chunks, encoded in msgpack, oldest first."""
        return [*self._encoded, msgspec.Raw(_encode(self._filling))]


def _packed(identities: list[str]) -> list[str] | bytes:
    """Return identities as bytes if all are UUIDs, as most trade ids are: less than half the size."""
    if not all(map(_is_uuid, identities)):
        return identities
    return bytes.fromhex("".join(identities).replace("-", ""))


def _unpacked(chunk: Sequence[str] | bytes) -> Sequence[str]:
    return uuid_texts_in(chunk) if isinstance(chunk, bytes) else chunk
