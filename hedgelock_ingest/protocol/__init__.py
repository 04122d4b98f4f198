"""
Bybit v5 protocol rules without I/O: wire messages, sessions, identities, order books.

Pure, without clock and socket. Imports `errors`, and no other package of the project.
"""
