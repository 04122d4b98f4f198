"""A user of Kafka who lacks permissions: the lines stay open, and records follow once an operator allows them."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hedgelock_ingest_tests.kafka.secured_broker import PASSWORD, secured_broker
from hedgelock_ingest_tests.processes.stage import staged

OF_INGEST = "kafka-acls --add --allow-principal User:ingest --resource-pattern-type prefixed"


def is_reported(words: str, statistics: dict[str, Any]) -> bool:
    """Return whether the statistics give these words as the reason why Kafka takes no records."""
    return words in (statistics["kafka"]["reason"] or "")


@pytest.mark.proof
async def test_stream_waits_for_permissions_with_open_lines(topic_prefix: str, tmp_path: Path) -> None:
    """The pages name user, operation and command; nothing is lost, and DescribeConfigs is never needed."""
    keys = tmp_path / "keys"
    keys.mkdir()
    with secured_broker(keys) as broker:
        async with staged(
            broker.kafka,
            topic_prefix,
            tmp_path,
            rate=200,
            KAFKA_BOOTSTRAP_SERVERS=broker.address("LOGIN"),
            KAFKA_SECURITY_PROTOCOL="SASL_PLAINTEXT",
            KAFKA_SASL_USERNAME="ingest",
            KAFKA_SASL_PASSWORD=PASSWORD,
        ) as stage:
            stage.stream.start()
            settings = broker.settings_of("ingest", topic_prefix)

            for operations, lacking in (
                ("", "Describe, Read, Write on 11 topics"),
                ("--operation Describe", "Create, Read, Write on 11 topics"),
                ("--operation Create --operation Write", "Read on 11 topics"),
                ("--operation Read", None),
            ):
                if operations:
                    await broker.allow(f"{OF_INGEST} {operations} --topic {topic_prefix}", settings)
                if lacking:
                    await stage.stream.until_stats(lacking, partial(is_reported, f"User:ingest {lacking}; allow it"))
            await stage.stream.ready()
            await stage.all_received()
            proved = await stage.proved()
            assert not proved.gaps
