"""
What an operator checks and repairs: settings and connections, gaps, dead letters, a recorded journal.

May import `account` and what is below.
"""
