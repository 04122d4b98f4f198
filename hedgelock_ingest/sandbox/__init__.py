"""Stand-ins that really run: a simulated Bybit, an embedded Kafka, the demo."""
