"""
The account: wallet, orders, positions, loans, and its private frames.

May import `errors` and the other parts of the simulated exchange.
"""
