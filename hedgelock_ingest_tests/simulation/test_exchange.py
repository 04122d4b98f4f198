"""The scripted exchange by itself: real lines over it, and the proofs of what real translation makes of its frames."""

from copy import deepcopy

import pytest

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest_tests.scenarios.evidence import Outage
from hedgelock_ingest_tests.scenarios.proof import Proved, prove
from hedgelock_ingest_tests.simulation.account_proof import check_account
from hedgelock_ingest_tests.simulation.small_stage import SmallStage, staged


def _proved(stage: SmallStage, **options: int) -> Proved:
    evidence = stage.evidence(**options)
    proved = prove(evidence)
    findings = check_account(stage.exchange, evidence.records, evidence.outages, unread_ms=evidence.unread_ms)
    assert not findings, "\n".join(findings)
    return proved


def test_frames_of_an_undisturbed_exchange_pass_the_proofs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it sends is what Bybit sends, as far as our own decoders and the proofs can tell."""

    async def run(stage: SmallStage) -> None:
        await stage.run(seconds=30)
        proved = _proved(stage)
        assert proved.events > 100
        assert proved.in_kafka == proved.events - proved.before_the_first
        assert not stage.records_of(Topic.INGEST_GAPS)
        assert len(stage.records_of(Topic.EXECUTIONS)) > 1

    staged(monkeypatch, run)
