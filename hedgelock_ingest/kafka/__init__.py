"""
Kafka I/O: clients, publishing, consuming, topics.

The only package that imports aiokafka. May import `translate`, `models` and `protocol`; not `bybit` or `journal`.
"""
