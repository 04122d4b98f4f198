"""The id of a journal that another process may own."""

from hedgelock_ingest.journal.copies import journal_id_of

__all__ = ["journal_id_of"]
