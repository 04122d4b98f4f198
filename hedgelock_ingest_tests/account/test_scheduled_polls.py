"""Polls without the stream, as called by an orchestrator."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from decimal import Decimal
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from hedgelock_ingest.account import scheduled_polls
from hedgelock_ingest.account.scheduled_polls import Poller
from hedgelock_ingest.errors import KafkaUnavailable, KeyRefused, RestUnavailable, SettingsInvalid
from hedgelock_ingest.kafka.tail import ReadRecord
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.exchange.keys import KEYS, ApiKey
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest.settings import Settings
from hedgelock_ingest_tests.account.account_stage import account_settings
from hedgelock_ingest_tests.kafka.read_topic import read_topic
from hedgelock_ingest_tests.processes.stage import eventually
from hedgelock_ingest_tests.sandbox.exchange_fixtures import running_exchange


async def connected(settings: Settings) -> None:
    """Open a session of polls."""
    async with Poller(settings):
        pass


async def test_poll_publishes_what_it_returns(kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path) -> None:
    """Parts that were not polled yet are null, and the figures are the exchange's."""
    async with running_exchange() as exchange:
        exchange.pause()
        settings = account_settings(exchange, kafka, topic_prefix, tmp_path, bybit_account_id="desk-1")
        with capture_logs() as lines:
            async with Poller(settings) as poller:
                collateral, loans, wallet = await poller.collateral(), await poller.loans(), await poller.wallet()
        loan_position = exchange.account.loans.position()
    found = await read_topic(kafka.bootstrap_servers, settings.topic(Topic.ACCOUNT_RAW))

    assert collateral.message.collateral_info is not None
    assert Decimal(collateral.message.collateral_info.ltv or 0) == Decimal(loan_position["ltv"])
    assert collateral.message.balances is None
    assert loans.message.loan_info is not None
    assert wallet.message.balances
    assert None not in {balance.available_balance for balance in wallet.message.balances.values()}
    assert wallet.message.collateral_info == collateral.message.collateral_info
    assert wallet.message.margin is not None
    assert wallet.message.positions is None
    values = [json.loads(record.value) for record in found if record.value is not None]
    assert sorted(value["origin"] for value in values) == ["rest:collateral", "rest:loans", "rest:wallet"]
    assert {value["account_id"] for value in values} == {"desk-1"}
    traces = {str(each.message.trace_id) for each in (collateral, loans, wallet)}
    assert {value["trace_id"] for value in values} == traces
    assert {line["trace_id"] for line in lines if line["event"] == "account_polled"} == traces


async def test_message_of_a_poll_is_completed_with_the_last_record_of_the_account(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """Each run polls over its own session: the parts that it does not poll come from the topic."""
    async with running_exchange() as exchange:
        settings = account_settings(exchange, kafka, topic_prefix, tmp_path, bybit_account_id="desk-1")
        other = account_settings(exchange, kafka, topic_prefix, tmp_path, bybit_account_id="desk-2")
        async with Poller(settings) as poller:
            wallet, collateral = await poller.wallet(), await poller.collateral()
        async with Poller(other) as poller:
            first = await poller.loans()
        async with Poller(settings) as poller:
            loans = await poller.loans()

    assert (loans.message.balances, loans.message.margin) == (wallet.message.balances, wallet.message.margin)
    assert loans.message.collateral_info == collateral.message.collateral_info
    assert loans.message.as_of is not None
    assert loans.message.as_of.balances == wallet.message.timestamp
    assert loans.message.as_of.loan_info == loans.message.timestamp
    assert first.message.balances is None, "a part of another account"


async def test_message_of_a_poll_has_what_was_published_during_its_session(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """The stream publishes each frame: a balance of before it must not stand in every message of a minute."""
    async with running_exchange() as exchange:
        settings = account_settings(exchange, kafka, topic_prefix, tmp_path)
        async with Poller(settings) as poller, Poller(settings) as other:
            first = await poller.wallet()
            exchange.account.deposit("USDT", "1000")
            later = await other.wallet()
            assert later.message.balances != first.message.balances

            async def is_known() -> bool:
                return (await poller.collateral()).message.balances == later.message.balances

            await eventually("the balance of the other session", is_known)


async def test_poll_does_not_wait_for_a_last_record_that_cannot_be_read(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The grid of polls is kept; the message lacks the parts that were not polled."""

    async def never(*_: object, **__: object) -> AsyncGenerator[ReadRecord]:
        await asyncio.Event().wait()
        yield ReadRecord(0, 0, 0, None, None)

    async with running_exchange() as exchange:
        settings = account_settings(exchange, kafka, topic_prefix, tmp_path)
        async with Poller(settings) as poller:
            await poller.wallet()
        monkeypatch.setattr(scheduled_polls, "tail", never)
        async with Poller(settings) as poller:
            began_s = time.monotonic()
            first, second = await poller.collateral(), await poller.collateral()
            assert time.monotonic() - began_s < 5
    assert first.message.balances is None
    assert second.took_s is not None
    assert second.took_s < 1, "only the first poll may wait"


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
            with pytest.raises(RestUnavailable, match="expected JSON"):
                await poller.collateral()
    assert await read_topic(kafka.bootstrap_servers, settings.topic(Topic.ACCOUNT_RAW)) == []


async def test_poll_without_kafka_fails_with_its_cause(tmp_path: Path) -> None:
    """The run fails with a Kafka error and does not wait forever."""
    async with running_exchange() as exchange:
        with pytest.raises(KafkaUnavailable):
            await connected(account_settings(exchange, None, "", tmp_path))
