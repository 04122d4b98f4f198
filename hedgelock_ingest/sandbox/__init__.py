"""Local replacements that run as real servers: a simulated Bybit, an embedded Kafka, the demo."""
