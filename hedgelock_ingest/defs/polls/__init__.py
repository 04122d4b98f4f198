"""The scheduled polls of collateral, loans and wallet."""
