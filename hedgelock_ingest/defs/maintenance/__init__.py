"""
Maintenance jobs: replay of dead letters, deletion of old runs.

May import `audit`, `models` and the other parts of `defs`.
"""
