"""
Recovery of a damaged journal: examine it, copy what SQL can read into a new database, and report what is lost.

May import what `journal` may, and the other modules of `journal`.
"""
