"""Fast formatting of times and UUIDs for records."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache

from hedgelock_ingest.errors import FrameError

_LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59Z


@lru_cache(maxsize=256)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


@lru_cache(maxsize=4096)
def iso(at_ms: int) -> str:
    """
    Write milliseconds since 1970 as `2024-05-15T04:52:42.463Z`.

    Raises:
        FrameError: The time is not between 1970 and 9999.
    """
    seconds, milliseconds = divmod(at_ms, 1000)
    if not 0 <= seconds <= _LAST_SECOND:
        raise FrameError("a time outside the years 1970 to 9999")
    return f"{_second(seconds)}.{milliseconds:03d}Z"


def uuid_text(trace: bytes) -> str:
    """Write the 16 bytes of a UUID in its usual form."""
    text = trace.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def uuid_texts(traces: Sequence[bytes]) -> list[str]:
    """Write many UUIDs in their usual form; above a minimum number all at once, digit by digit, which is faster."""
    if len(traces) < _MIN_BATCH_UUIDS:
        return [uuid_text(trace) for trace in traces]
    return uuid_texts_in(b"".join(traces))


def uuid_texts_in(joined: bytes) -> list[str]:
    """Write the UUIDs of concatenated 16-byte values; see `uuid_texts`."""
    digits = joined.hex().encode()
    texts = bytearray(b"-") * (_UUID_CHARACTERS * (len(digits) // len(_PLACES_OF_DIGITS)))
    for to, place in enumerate(_PLACES_OF_DIGITS):
        texts[place::_UUID_CHARACTERS] = digits[to :: len(_PLACES_OF_DIGITS)]
    joined_texts = texts.decode()
    starts = range(0, len(joined_texts), _UUID_CHARACTERS)
    return [joined_texts[start : start + _UUID_CHARACTERS] for start in starts]


_UUID_CHARACTERS = 36
_PLACES_OF_DIGITS = [place for place in range(_UUID_CHARACTERS) if place not in (8, 13, 18, 23)]
_MIN_BATCH_UUIDS = 40
