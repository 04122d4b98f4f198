"""
Switches for faults, and the endpoints that control them.

May import `errors` and the other parts of the simulated exchange.
"""
