"""
The job that completes an hour of records from REST.

May import `backfill` and the other parts of `defs`.
"""
