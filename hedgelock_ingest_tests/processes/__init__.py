"""
End-to-end scenarios on a real broker: complete processes, a simulated exchange, and every fault that the design names.

`stage` sets a scenario up, `reference_client` records what the exchange sent, `stream_process` runs the service as an
operator does, and `proof` compares what the exchange sent with what Kafka holds.
"""
