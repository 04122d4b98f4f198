"""Maintenance jobs: replay of dead letters, deletion of old runs."""
