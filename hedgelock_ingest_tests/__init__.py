"""Tests of HedgeLock Ingest: the same tree as the package."""
