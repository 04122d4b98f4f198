"""Replay of a journal into topics with a prefix."""

from hedgelock_ingest.audit.replay import prefixed
from hedgelock_ingest.kafka.routes import written_topics
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.settings import Settings


def test_every_topic_of_a_replay_has_the_prefix() -> None:
    """A trial must not write into the topics that consumers read, further ones included."""
    settings = Settings(
        kafka_topic_account_raw="desk.account", kafka_routes=("OrderUpdate=account_raw", "OrderUpdate=desk.orders")
    )
    written = written_topics(prefixed(settings, "trial-"))
    assert all(name.startswith("trial-") for name in written)
    assert written["trial-desk.account"] is Topic.ACCOUNT_RAW
    assert written["trial-desk.orders"] is None
    assert prefixed(settings, "trial-").further_topics == {
        Topic.ORDER_UPDATES: ("trial-desk.account", "trial-desk.orders")
    }
