"""Dagster's entry point: loads what `defs` holds."""

import dagster as dg

from hedgelock_ingest.defs import assembly


@dg.definitions
def defs() -> dg.Definitions:
    """Load everything; wrong settings are told, not raised, so that the location always loads."""
    return assembly.assemble()
