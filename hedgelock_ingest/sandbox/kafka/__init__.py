"""
A real Apache Kafka broker as a child process, for the demo and the tests; `pip install` is all it needs.

Imports `errors`, and nothing else of the project.
"""

from hedgelock_ingest.sandbox.kafka.broker import EmbeddedKafka
from hedgelock_ingest.sandbox.kafka.serving import serve

__all__ = ["EmbeddedKafka", "serve"]
