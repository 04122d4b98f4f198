"""
What Dagster shows and runs: lineage, the streaming op with its sensor, checks, upkeep.

The only home of dagster. Bodies are few lines that call `service`, `web.serving` or a reader of topics; nothing is
read, connected or decided at import. Modules with a Dagster definition do not postpone annotations: Dagster reads them.
"""
