"""The faults that can be switched on, and the endpoints that switch them."""
