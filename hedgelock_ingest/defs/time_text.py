"""Times as operators read them."""

from hedgelock_ingest.models.times import utc_time


def utc_text(at_ms: int) -> str:
    """Write milliseconds since 1970 as `2024-05-15 04:52:42`, in UTC."""
    return f"{utc_time(at_ms):%Y-%m-%d %H:%M:%S}"
