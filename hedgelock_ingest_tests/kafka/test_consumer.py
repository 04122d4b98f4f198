"""Reading a time span of topics."""

from hedgelock_ingest.kafka.consumer import read_span
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest.settings import Settings


async def test_topic_that_does_not_exist_yields_nothing(kafka: EmbeddedKafka, topic_prefix: str) -> None:
    """Gaps are listed, and audits run, before the first stream has created the topics."""
    settings = Settings(kafka_bootstrap_servers=kafka.bootstrap_servers, kafka_topic_ingest_gaps=topic_prefix + "gaps")
    assert [group async for group in read_span(settings, [Topic.INGEST_GAPS])] == []
    assert [group async for group in read_span(settings, [Topic.INGEST_GAPS], from_ms=1, to_ms=2)] == []
