"""What was published of a feed, as far back as it could come again."""

import re
from collections import deque
from collections.abc import Iterable, Sequence

import msgspec

from hedgelock_ingest.translate.formatting import uuid_texts_in

_CHUNK = 250
_CHUNKS = 5
REMEMBERED = _CHUNK * _CHUNKS
"""At least so many: more than REST can return (1,000 linear, 60 spot), so that healing doubles nothing."""

_encode = msgspec.msgpack.Encoder().encode
_is_uuid = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}").fullmatch


class Remembered:
    """
    The last names of a feed, in chunks, of which the oldest is forgotten as a whole.

    Full chunks are kept as they are saved, too: encoding tens of thousands of names each time would halt the loop.
    While `forgets_nothing` is set, the names of before stay, however many come: REST may still tell of them.
    """

    __slots__ = ("_encoded", "_filling", "_full", "forgets_nothing", "known")

    def __init__(self, chunks: Iterable[Sequence[str] | bytes] = (), *, forgets_nothing: bool = False) -> None:
        """Go on from what `save` gave."""
        self.forgets_nothing = forgets_nothing
        self.known: set[str] = set()
        self._filling: list[str] = []
        self._full: deque[list[str]] = deque()
        self._encoded: deque[msgspec.Raw] = deque()
        for chunk in chunks:
            for name in _unpacked(chunk):
                self.add(name)

    def add(self, name: str) -> None:
        """Remember a name that is not known."""
        self.known.add(name)
        self._filling.append(name)
        if len(self._filling) == _CHUNK:
            self._full.append(self._filling)
            self._encoded.append(msgspec.Raw(_encode(_packed(self._filling))))
            self._filling = []
            while len(self._full) > _CHUNKS and not self.forgets_nothing:
                self.known.difference_update(self._full.popleft())
                self._encoded.popleft()

    def save(self) -> list[msgspec.Raw]:
        """Give the chunks, encoded in msgpack, oldest first."""
        return [*self._encoded, msgspec.Raw(_encode(self._filling))]


def _packed(names: list[str]) -> list[str] | bytes:
    """Give the bytes of names that are all UUIDs, which is how Bybit names most trades: less than half to save."""
    if not all(map(_is_uuid, names)):
        return names
    return bytes.fromhex("".join(names).replace("-", ""))


def _unpacked(chunk: Sequence[str] | bytes) -> Sequence[str]:
    return uuid_texts_in(chunk) if isinstance(chunk, bytes) else chunk
