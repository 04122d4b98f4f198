"""
The streaming op, its supervisor, checks and reports.

May import `web`, `status`, `service` and the layers below, and the other parts of `defs`.
"""
