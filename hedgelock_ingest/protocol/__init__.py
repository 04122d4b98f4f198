"""Bybit v5 as rules without I/O: wire messages, sessions, identities, order books. No clock, no socket."""
