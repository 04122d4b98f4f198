"""
The WebSocket interface, public and private.

May import `errors` and the other parts of the simulated exchange.
"""
