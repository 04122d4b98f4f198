"""One run of the stream without a daemon, for tests of a run's reports."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from hedgelock_ingest.defs.stream import checks
from hedgelock_ingest.defs.stream.jobs import JOB_NAME
from hedgelock_ingest.defs.topics.assets import topic_key
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest_tests.defs.dagster_process import DagsterStream


class OneRun(DagsterStream):
    """One run of the stream that reports every second, without a daemon that could start another run."""

    def __init__(self, folder: Path, settings: Mapping[str, str], *, report_interval_s: float = 1) -> None:
        """Prepare; no process is started."""
        super().__init__(folder, settings)
        self._report_interval_s = report_interval_s

    def command(self) -> list[str]:
        """Return the command that `start` runs."""
        config = self.folder / "run.yaml"
        config.write_text(f"ops: {{carry_shard: {{config: {{report_interval_s: {self._report_interval_s}}}}}}}\n")
        where = ["-m", "hedgelock_ingest.definitions", "-j", JOB_NAME, "-c", str(config)]
        return [sys.executable, "-m", "dagster", "job", "execute", *where]

    @contextmanager
    def storage_refuses(self) -> Iterator[None]:
        """Replace the folder of the databases by a file: none can be opened or created."""
        storage, aside = self.home / "storage", self.home / "aside"
        storage.rename(aside)
        storage.touch()
        try:
            yield
        finally:
            storage.unlink()
            aside.rename(storage)

    def last_report(self) -> dg.EventLogEntry | None:
        """Return the last report of a topic."""
        with self.instance() as instance:
            return instance.get_latest_materialization_event(topic_key(Topic.MARKET_TRADES))

    def last_result(self, topic: Topic) -> dg.AssetCheckEvaluation | None:
        """Return the last result of the check `data_flows`."""
        with self.instance() as instance:
            key = dg.AssetCheckKey(topic_key(topic), checks.CHECK)
            found = instance.get_latest_asset_check_evaluation_record(key)
        return found.evaluation if found else None

    def lines(self) -> list[tuple[str | int, str]]:
        """Return the run's log lines with their levels."""
        with self.instance() as instance:
            (run,) = instance.get_runs()
            return [(entry.level, entry.user_message) for entry in instance.all_logs(run.run_id)]
