"""HedgeLock Ingest: Bybit's account, loan and market data into Kafka, exactly once and in order."""
