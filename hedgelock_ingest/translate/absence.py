"""How lists of REST, which may lag behind the stream, change what is known from it."""

REST_LAG_MS = 3_500
"""How far a list may be behind frames that came before it, although its time, which is that of the answer, is later."""


def is_gone(absent_ms: dict[str, int], key: str, *, known_ms: int, list_ms: int) -> bool:
    """
    Note that a list lacks an entry, and return whether the entry is gone: a second, later list lacks it, too.

    A list that is not later than everything known of the entry has no news about it, and one later list may come from
    a replica that lags.

    Args:
        absent_ms: Times of the first lists that lacked an entry, by key; changed in place.
        key: The entry's key.
        known_ms: The latest time at which the entry is known to have existed, with the lag after a frame.
        list_ms: The list's time.
    """
    if list_ms <= known_ms:
        return False
    first_ms = absent_ms.setdefault(key, list_ms)
    if list_ms <= first_ms:
        return False
    del absent_ms[key]
    return True
