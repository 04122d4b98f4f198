"""Polls without the stream, as called by an orchestrator."""

import json
from decimal import Decimal
from pathlib import Path

import pytest

from hedgelock_ingest.account.scheduled_polls import Poller
from hedgelock_ingest.errors import KafkaUnavailable, KeyRefused, RestUnavailable, SettingsInvalid
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.exchange.keys import KEYS, ApiKey
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest.settings import Settings
from hedgelock_ingest_tests.account.account_stage import account_settings
from hedgelock_ingest_tests.kafka.read_topic import read_topic
from hedgelock_ingest_tests.sandbox.exchange_fixtures import running_exchange


async def connected(settings: Settings) -> None:
    """Open a session of polls."""
    async with Poller(settings):
        pass


async def test_poll_publishes_what_it_returns(kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path) -> None:
    """Each message has one part, the other parts are null, and the figures are the exchange's."""
    async with running_exchange() as exchange:
        exchange.pause()
        settings = account_settings(exchange, kafka, topic_prefix, tmp_path, bybit_account_id="desk-1")
        async with Poller(settings) as poller:
            collateral, loans, wallet = await poller.collateral(), await poller.loans(), await poller.wallet()
        loan_position = exchange.account.loans.position()
    found = await read_topic(kafka.bootstrap_servers, settings.topic(Topic.ACCOUNT_RAW))

    assert collateral.message.collateral_info is not None
    assert Decimal(collateral.message.collateral_info.ltv or 0) == Decimal(loan_position["ltv"])
    assert collateral.message.balances is None
    assert loans.message.loan_info is not None
    assert wallet.message.balances
    values = [json.loads(record.value) for record in found if record.value is not None]
    assert sorted(value["origin"] for value in values) == ["rest:collateral", "rest:loans", "rest:wallet"]
    assert {value["account_id"] for value in values} == {"desk-1"}
    assert {value["trace_id"] for value in values} == {
        str(each.message.trace_id) for each in (collateral, loans, wallet)
    }


async def test_polls_of_a_session_have_unique_names(kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path) -> None:
    """Consumers distinguish records by journal id and position, so no two polls share them."""
    async with running_exchange() as exchange:
        settings = account_settings(exchange, kafka, topic_prefix, tmp_path)
        for _ in range(2):
            async with Poller(settings) as poller:
                await poller.collateral()
                await poller.collateral()
    found = await read_topic(kafka.bootstrap_servers, settings.topic(Topic.ACCOUNT_RAW))

    names = {tuple(value for name, value in record.headers if name.startswith("journal-")) for record in found}
    assert len(found) == len(names) == 4


@pytest.mark.parametrize("key", [KEYS["trading"], KEYS["expired"]], ids=["trading", "expired"])
async def test_poll_uses_no_refused_key(key: ApiKey, tmp_path: Path) -> None:
    """The key gate holds for polls as for the stream."""
    async with running_exchange() as exchange:
        with pytest.raises(KeyRefused):
            await connected(account_settings(exchange, None, "", tmp_path, key=key))


async def test_poll_without_a_key_names_the_missing_settings(tmp_path: Path) -> None:
    """The key was not refused but is missing: the error names the settings."""
    async with running_exchange() as exchange:
        with pytest.raises(SettingsInvalid, match="set BYBIT_API_KEY and BYBIT_API_SECRET"):
            await connected(account_settings(exchange, None, "", tmp_path, key=None))


async def test_answer_that_cannot_be_decoded_fails_the_poll(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """The orchestrator's run fails and is retried; nothing is published."""
    async with running_exchange() as exchange:
        settings = account_settings(exchange, kafka, topic_prefix, tmp_path)
        exchange.fail_rest("html", path="/v5/crypto-loan-common", count=None, status=200)
        async with Poller(settings) as poller:
            with pytest.raises(RestUnavailable, match="does not answer as Bybit does"):
                await poller.collateral()
    assert await read_topic(kafka.bootstrap_servers, settings.topic(Topic.ACCOUNT_RAW)) == []


async def test_poll_without_kafka_fails_with_its_cause(tmp_path: Path) -> None:
    """The run fails with a Kafka error and does not wait forever."""
    async with running_exchange() as exchange:
        with pytest.raises(KafkaUnavailable):
            await connected(account_settings(exchange, None, "", tmp_path))
