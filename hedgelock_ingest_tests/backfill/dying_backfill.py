"""A backfill that kills itself when half is published and the rest in flight; its argument is the hour's start."""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from datetime import datetime

from hedgelock_ingest.backfill.hour import backfill_hour
from hedgelock_ingest.clock import SystemClock
from hedgelock_ingest.kafka.aiokafka_cluster import AiokafkaCluster
from hedgelock_ingest.kafka.ports import KafkaTiming
from hedgelock_ingest.kafka.publisher import Publisher, refuse_none
from hedgelock_ingest.settings import Settings, load_settings
from hedgelock_ingest.translate.record import Keep, Record


class DyingPublisher(Publisher):
    """Publishes half of the first records, and kills the process with the other half in flight."""

    async def publish(self, records: Sequence[Record], keep: Keep = refuse_none) -> None:
        """Publish half, then kill the process."""
        half = len(records) // 2
        await super().publish(records[:half])
        under_way = asyncio.ensure_future(super().publish(records[half:]))
        await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGKILL)
        await under_way


def dying_publisher(settings: Settings, journal_id: str) -> Publisher:
    """Create the publisher."""
    clock, timing = SystemClock(), KafkaTiming()
    return DyingPublisher(
        settings, journal_id, cluster=AiokafkaCluster(settings, clock, timing), clock=clock, timing=timing
    )


if __name__ == "__main__":
    asyncio.run(backfill_hour(load_settings(), datetime.fromisoformat(sys.argv[1]), publisher=dying_publisher))
