"""
Connects lines, journal, translation and Kafka.

Imports `translate` and `protocol`; `bybit`, `kafka` and `journal` are passed in as the Protocols in `ports`.
"""
