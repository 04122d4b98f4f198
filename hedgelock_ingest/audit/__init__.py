"""
Checks and repairs by an operator: settings and connections, gaps, dead letters, a recorded journal.

May import `account` and the layers below.
"""
