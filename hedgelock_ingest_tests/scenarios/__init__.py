"""
The promise, proved on a real broker: whole processes, a simulated exchange, every accident that the design names.

`stage` sets everything up, `witness` hears what the exchange really sent, `stream_process` runs the service as people
run it, and `proof` compares what the exchange sent with what Kafka holds.
"""
