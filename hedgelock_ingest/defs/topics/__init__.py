"""Feeds and topics as assets: lineage, descriptions, columns."""
