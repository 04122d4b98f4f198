"""The account: wallet, orders, positions, loans, and its private frames."""
