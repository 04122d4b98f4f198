"""Times in UTC, and the milliseconds since 1970 of Bybit and Kafka."""

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def unix_ms(at: datetime) -> int:
    """Return the complete milliseconds since 1970, without rounding errors; a time without a zone is local time."""
    return (at.astimezone(UTC) - _EPOCH) // _MILLISECOND


def utc_time(at_ms: int) -> datetime:
    """Return the time in UTC that is `at_ms` milliseconds after 1970."""
    return _EPOCH + at_ms * _MILLISECOND


def utc_text(at_ms: int) -> str:
    """Write milliseconds since 1970 as `2024-05-15 04:52:42`, in UTC, for operators."""
    return f"{utc_time(at_ms):%Y-%m-%d %H:%M:%S}"
