"""
What the stream costs beside the bare loop, on this machine, over a real Kafka: `python -m benchmarks`.

Three processes do a round: `sender` speaks just enough of Bybit's protocol and sends frames that number themselves,
the stream under test (the product, or `bare`) carries them, `consumer` notes when each one can be read from Kafka.
They meet on a `board` in shared memory. docs/performance.md explains the figures.
"""
