"""
The durable local log of received frames, on SQLite; the only buffer between Bybit and Kafka that is kept on disk.

The only package that imports sqlite3. May import `translate`, `models` and `protocol`; not `bybit` or `kafka`.
`Journal` is the entry point; `open_copy`, `dead_letters_in`, `journal_id_of` and `saved_state_in` read a journal that
another process owns; `owner_of` names it; `bound_in`, `free_bytes_at` and `first_existing` measure a disk.
"""

from hedgelock_ingest.journal.disk_room import bound_in, first_existing, free_bytes_at
from hedgelock_ingest.journal.inspection import dead_letters_in, journal_id_of, open_copy, saved_state_in
from hedgelock_ingest.journal.journal import Journal
from hedgelock_ingest.journal.lock import locked_by, owner_of
from hedgelock_ingest.journal.results import LostRange, Recovery, SavedState

__all__ = [
    "Journal",
    "LostRange",
    "Recovery",
    "SavedState",
    "bound_in",
    "dead_letters_in",
    "first_existing",
    "free_bytes_at",
    "journal_id_of",
    "locked_by",
    "open_copy",
    "owner_of",
    "saved_state_in",
]
