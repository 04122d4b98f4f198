"""Dagster's entry point: load the definitions of `defs`."""

import dagster as dg

from hedgelock_ingest.defs import assembly


@dg.definitions
def defs() -> dg.Definitions:
    """Load all definitions; wrong settings are reported, not raised, so that the location always loads."""
    return assembly.assemble()
