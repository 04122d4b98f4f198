"""Whose records: the id of a journal that someone else may own."""

from hedgelock_ingest.journal.copies import journal_id_of

__all__ = ["journal_id_of"]
