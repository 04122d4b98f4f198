"""
Local replacements that run as real servers: a simulated Bybit, an embedded Kafka, the demo.

May import `status` and the layers below; only `demo` does, to read the topics.
"""
