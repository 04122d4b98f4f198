"""
The REST interface.

May import `errors` and the other parts of the simulated exchange.
"""
