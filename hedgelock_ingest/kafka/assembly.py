"""Assembly of a publisher on the Kafka cluster at the addresses in the settings."""

from hedgelock_ingest.clock import Clock, SystemClock
from hedgelock_ingest.kafka.aiokafka_cluster import AiokafkaCluster
from hedgelock_ingest.kafka.publisher import Publisher
from hedgelock_ingest.kafka.timing import KafkaTiming
from hedgelock_ingest.settings import Settings


def kafka_publisher(settings: Settings, journal_id: str, *, clock: Clock | None = None) -> Publisher:
    """Create a publisher for the records of a journal, not yet connected; `clock` defaults to the system clock."""
    patience_s = settings.kafka_delivery_timeout
    timing = KafkaTiming(patience_s=patience_s, open_timeout_s=min(KafkaTiming.open_timeout_s, patience_s))
    clock = clock or SystemClock()
    cluster = AiokafkaCluster(settings, clock, timing)
    return Publisher(settings, journal_id, cluster=cluster, clock=clock, timing=timing)
