"""
Benchmarks of the stream against a bare loop, on this machine, over a real Kafka: `python -m benchmarks`.

A round has three processes: `sender` implements a minimum of Bybit's protocol and sends numbered frames, the stream
under test (the product, or `bare`) carries them, `consumer` notes when each one can be read from Kafka. They share a
`board` in shared memory. docs/performance.md explains the figures.
"""
