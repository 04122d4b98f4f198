"""The sensor evaluates each shard separately."""

import dagster as dg

from hedgelock_ingest.defs.stream import sensors
from hedgelock_ingest.defs.stream.jobs import JOB_NAME
from hedgelock_ingest.defs.stream.supervisor import SupervisorTimeouts


def add_run(instance: dg.DagsterInstance, shard: str, run_id: str) -> None:
    """Store a failed run."""
    tags = {"dagster/partition": shard}
    instance.add_run(dg.DagsterRun(JOB_NAME, run_id=run_id, status=dg.DagsterRunStatus.FAILURE, tags=tags))


def test_shard_that_fails_again_and_again_does_not_hide_the_runs_of_another() -> None:
    """Otherwise the other shard would request its first run again, which Dagster ignores, and stay down."""
    with dg.DagsterInstance.ephemeral() as instance:
        add_run(instance, "linear", "the-last-one")
        for n in range(40):
            add_run(instance, "spot", f"failed-{n}")
        quick = SupervisorTimeouts(first_backoff_s=0, longest_backoff_s=0)

        answer = sensors.evaluate(instance, ["spot", "linear"], None, quick)

    assert "stream:linear:the-last-one" in {request.run_key for request in answer.run_requests or []}
