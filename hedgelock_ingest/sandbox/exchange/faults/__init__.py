"""Switches for faults, and the endpoints that control them."""
