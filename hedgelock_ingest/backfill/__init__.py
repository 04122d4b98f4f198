"""
An hour of trades and executions completed from REST.

May import `account` and what is below.
"""
