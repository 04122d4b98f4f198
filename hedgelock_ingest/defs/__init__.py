"""
Dagster definitions: lineage, the streaming op with its sensor, checks, maintenance.

The only package that imports dagster. Bodies are a few lines that call `service`, `web.serving` or a reader of topics;
nothing is read, connected or decided at import. Modules with a Dagster definition do not postpone annotations: Dagster
reads them.
"""
