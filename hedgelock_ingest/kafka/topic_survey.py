"""The survey of the topics that a publisher writes: which of them it can use, and why it cannot use the others."""

from collections.abc import Collection

from hedgelock_ingest.errors import KafkaDenied, KafkaUnavailable, TopicMismatch
from hedgelock_ingest.kafka.client import denied
from hedgelock_ingest.kafka.ports import Cluster
from hedgelock_ingest.kafka.topic_reports import REQUIRED_OPERATIONS, TopicReport, leaderless_text, require
from hedgelock_ingest.settings import Settings


class TopicSurvey:
    """
    The topics as they were last reported.

    A topic that was used before may be missing or denied for now; one that was never used raises an error, since then
    the settings are wrong.
    """

    def __init__(self, settings: Settings, cluster: Cluster) -> None:
        """Prepare; nothing is requested."""
        self._settings = settings
        self._cluster = cluster
        self.reports: list[TopicReport] = []
        self.partitions: dict[str, int] = {}
        """The number of partitions of every topic, of a missing one as it was before."""

    @property
    def readable(self) -> dict[str, int]:
        """The numbers of partitions of the topics that can be read back."""
        return {report.name: report.partitions for report in self.reports if report.is_readable}

    async def take(self) -> dict[str, str]:
        """
        Create missing topics, and report all; return why a topic cannot be read back, by name.

        Raises:
            KafkaUnavailable: No usable answer; or no topic can be read.
            KafkaDenied: The user lacks an operation on a topic that was not used before.
            TopicMismatch: A topic that was not used before is missing, and may not be created.
        """
        self.reports = await self._reports()
        new = [report for report in self.reports if report.name not in self.partitions]
        require(self._settings, [report for report in new if not report.is_missing], REQUIRED_OPERATIONS)
        for report in new:
            if report.is_missing:
                raise _missing(report.name)
        unreadable = {report.name: self._why_unreadable(report) for report in self.reports if not report.is_readable}
        if len(unreadable) == len(self.reports):
            raise KafkaUnavailable("; ".join(dict.fromkeys(unreadable.values())))
        self.partitions |= {report.name: report.partitions for report in self.reports if report.exists}
        return unreadable

    async def usable_now(self, names: Collection[str]) -> list[TopicReport]:
        """Create those of some topics that are missing, and report those that can be read back."""
        return [report for report in await self._reports() if report.is_readable and report.name in names]

    async def _reports(self) -> list[TopicReport]:
        try:
            return await self._cluster.topics()
        except (KafkaDenied, TopicMismatch):
            if not self.partitions:
                raise
            return await self._cluster.topics(create=False)

    def _why_unreadable(self, report: TopicReport) -> str:
        if report.is_missing:
            return str(_missing(report.name))
        if report.exists and report.leaderless:
            return f"the topic {report.name} has {leaderless_text(report.leaderless, report.partitions)}"
        return str(denied(self._settings, report.denied, [report.name]))


def _missing(name: str) -> TopicMismatch:
    return TopicMismatch(
        f'the topic {name} does not exist; create it with "hedgelock-ingest topics" or set KAFKA_CREATE_TOPICS=true'
    )
