"""The scripted exchange by itself: real lines over it, and the proof of what real translation makes of its frames."""

import pytest

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest_tests.scenarios.account import view_of_books, view_of_update
from hedgelock_ingest_tests.scenarios.evidence import Outage
from hedgelock_ingest_tests.scenarios.proof import prove
from hedgelock_ingest_tests.simulation.small_stage import SmallStage, staged


def test_frames_of_an_undisturbed_exchange_pass_the_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it sends is what Bybit sends, as far as our own decoders and the proof can tell."""

    async def run(stage: SmallStage) -> None:
        await stage.run(seconds=30)
        proved = prove(stage.evidence())
        assert proved.events > 100
        assert proved.in_kafka == proved.events - proved.before_the_first
        assert not stage.records_of(Topic.INGEST_GAPS)
        assert len(stage.records_of(Topic.EXECUTIONS)) > 1
        assert view_of_update(stage.records_of(Topic.ACCOUNT_UPDATES)[-1].value) == view_of_books(
            stage.exchange.account.books()
        )

    staged(monkeypatch, run)
