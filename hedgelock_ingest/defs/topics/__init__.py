"""
Feeds and topics as assets: lineage, descriptions, columns.

May import `models` and the other parts of `defs`.
"""
