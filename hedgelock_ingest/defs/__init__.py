"""
Dagster definitions: lineage, the streaming op with its sensor, polls, audit, backfill, maintenance.

Only this package and the module `definitions` import dagster. May import `web` and the layers below. Bodies are a few
lines that call `service`, `web.serving` or a reader of topics; nothing is read, connected or decided at import.
Modules with a Dagster definition do not postpone annotations: Dagster reads them.
"""
