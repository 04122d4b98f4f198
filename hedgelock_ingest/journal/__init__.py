"""
The durable local log of received frames, on SQLite; the only buffer between Bybit and Kafka.

The only home of sqlite3. May import `protocol` and `errors`. `Journal` is the way in; `open_copy`,
`dead_letters_in` and `journal_id_of` read a journal that someone else owns.
"""

from hedgelock_ingest.journal.copies import dead_letters_in, journal_id_of, open_copy
from hedgelock_ingest.journal.journal import Journal
from hedgelock_ingest.journal.values import LostRange, Recovery, RefusedRecord

__all__ = ["Journal", "LostRange", "Recovery", "RefusedRecord", "dead_letters_in", "journal_id_of", "open_copy"]
