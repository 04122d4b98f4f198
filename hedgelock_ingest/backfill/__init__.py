"""
Backfill of one hour of trades and executions from REST.

May import `account` and the layers below.
"""
