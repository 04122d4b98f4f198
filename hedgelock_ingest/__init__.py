"""
HedgeLock Ingest: Bybit's account, loan and market data into Kafka, exactly once and in order.

Imports between packages point down, in the order of the layers in `pyproject.toml`. `clock`, `errors`, `logs`,
`redaction` and `settings` are beside the layers; of these, the pure packages `models`, `protocol` and `translate`
import at most `errors`.
"""
