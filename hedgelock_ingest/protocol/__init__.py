"""Bybit v5 protocol rules without I/O: wire messages, sessions, identities, order books. No clock, no socket."""
