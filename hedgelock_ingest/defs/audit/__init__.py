"""
The scheduled audit of the topics.

May import `audit`, `models` and the other parts of `defs`.
"""
