"""
The durable local log of received frames, on SQLite; the only buffer between Bybit and Kafka.

The only home of sqlite3. May import `protocol` and `errors`. `Journal` is the way in; `open_copy` reads a
journal that someone else owns.
"""

from hedgelock_ingest.journal.journal import Journal
from hedgelock_ingest.journal.reader import open_copy
from hedgelock_ingest.journal.values import LostRange, Recovery, RefusedRecord

__all__ = ["Journal", "LostRange", "Recovery", "RefusedRecord", "open_copy"]
