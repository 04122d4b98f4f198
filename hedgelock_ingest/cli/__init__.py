"""
The command `hedgelock-ingest`: parses arguments, loads the settings, calls what does the work.

May import everything.
"""
