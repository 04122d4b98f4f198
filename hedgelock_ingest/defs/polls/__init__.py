"""
The scheduled polls of collateral, loans and wallet.

May import `account`, `models`, `protocol` and the other parts of `defs`.
"""
