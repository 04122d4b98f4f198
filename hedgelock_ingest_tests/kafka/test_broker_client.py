"""Kafka is reached while any host answers; what a host does instead never delays that."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiokafka.client import AIOKafkaClient, ConnectionGroup

from hedgelock_ingest.audit.check import Severity, run_checks
from hedgelock_ingest.errors import KafkaUnavailable
from hedgelock_ingest.kafka import broker_client
from hedgelock_ingest.kafka.aiokafka_cluster import kafka_publisher
from hedgelock_ingest.kafka.broker_client import BrokerClient
from hedgelock_ingest.kafka.probe import probe_kafka
from hedgelock_ingest.kafka.tail import tail
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest.settings import Settings
from hedgelock_ingest_tests.kafka.hosts import OWN, advertising, answering, black_hole, resetting
from hedgelock_ingest_tests.kafka.records import a_record
from hedgelock_ingest_tests.processes.stage import eventually

WEB = b"HTTP/1.1 400 Bad Request\r\n\r\n"


@pytest.fixture(autouse=True)
def _silence_is_never_waited_out(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A test that waited for a silent host to time out would itself time out."""
    monkeypatch.setattr(broker_client, "CONNECT_TIMEOUT_S", 1_000.0)


@pytest.fixture
async def wrong_hosts() -> AsyncIterator[list[str]]:
    """Start one of each: silent, black-holed, resetting, a web server, of another protocol, and without a name."""
    async with AsyncExitStack() as hosts:
        silent = await hosts.enter_async_context(answering(None))
        web = await hosts.enter_async_context(answering(WEB))
        other = await hosts.enter_async_context(answering(b"+OK ready\r\n"))
        reset = await hosts.enter_async_context(resetting())
        hole = hosts.enter_context(black_hole())
        yield [silent, hole, reset, web, other, "127.0.0.1:1", "broker.invalid:9092"]


def settings_at(*servers: str, prefix: str = "") -> Settings:
    """Return settings with these bootstrap servers."""
    names: dict[str, Any] = {topic.setting: prefix + topic.value for topic in Topic}
    nowhere: dict[str, Any] = {"bybit_public_ws_url": "ws://127.0.0.1:1", "bybit_rest_url": "http://127.0.0.1:1"}
    return Settings(kafka_bootstrap_servers=",".join(servers), **names, **nowhere)


async def test_every_client_starts_by_the_one_host_that_answers(
    kafka: EmbeddedKafka, topic_prefix: str, wrong_hosts: list[str]
) -> None:
    """Admin client, reader, producer and consumer each choose among all hosts."""
    settings = settings_at(*wrong_hosts, kafka.bootstrap_servers, prefix=topic_prefix)
    async with asyncio.timeout(60):
        assert (await probe_kafka(settings, 1_000)).brokers == 1
        publisher = kafka_publisher(settings, "0" * 32)
        try:
            await publisher.open(None, settle=False)
            await publisher.publish([a_record(1)])
        finally:
            await publisher.close()
        assert len([record async for record in tail(settings, Topic.MARKET_TRADES.value)]) == 1


async def test_silent_broker_of_the_cluster_delays_no_other(kafka: EmbeddedKafka, topic_prefix: str) -> None:
    """A machine that died stays in the metadata for a while; no partition that others lead waits for it."""
    async with (
        asyncio.timeout(60),
        answering(None) as silent,
        advertising(kafka.bootstrap_servers, OWN, silent) as address,
    ):
        settings = settings_at(address, prefix=topic_prefix)
        publisher = kafka_publisher(settings, "0" * 32)
        try:
            for position in (1, 2):
                await publisher.open(None, settle=False)
                await publisher.publish([a_record(position)])
        finally:
            await publisher.close()
        assert len([record async for record in tail(settings, Topic.MARKET_TRADES.value)]) == 2


async def test_connection_to_a_silent_broker_waits_alone(kafka: EmbeddedKafka) -> None:
    """aiokafka opens one connection at a time, so that one dead leader would stop all partitions."""
    async with answering(None) as silent, advertising(kafka.bootstrap_servers, silent, OWN) as address:
        client = BrokerClient.adopt(AIOKafkaClient(bootstrap_servers=address))
        try:
            async with asyncio.timeout(30):
                await client.bootstrap()
                waiting = asyncio.ensure_future(client.ready(1))
                assert not (await asyncio.wait({waiting}, timeout=0.01))[0]
                assert await client.ready(2, group=ConnectionGroup.COORDINATION)
                assert await client.force_metadata_update()
                assert client.get_random_node() == 2
                waiting.cancel()
        finally:
            await client.close()


async def test_address_that_brokers_advertise_is_named(kafka: EmbeddedKafka) -> None:
    """The most frequent mistake with containers: the address holds for the broker's own network alone."""
    async with advertising(kafka.bootstrap_servers, "127.0.0.1:1", "broker.invalid:9092", "a..b:1") as address:
        with pytest.raises(KafkaUnavailable) as failed:
            await probe_kafka(settings_at(address), 1_000)
    for words in (
        f"Kafka answers at {address}, but not at the addresses that its brokers advertise",
        "broker 1 at 127.0.0.1:1 refuses connections",
        "broker 2 at broker.invalid:9092 does not resolve",
        "broker 3 at a..b:1 does not resolve",
        "correct advertised.listeners",
    ):
        assert words in str(failed.value)


@pytest.mark.parametrize("is_silent", [False, True])
async def test_host_that_advertises_an_unreachable_address_hides_no_good_one(
    kafka: EmbeddedKafka, topic_prefix: str, *, is_silent: bool
) -> None:
    """Its metadata come first, and lead nowhere."""
    async with AsyncExitStack() as hosts:
        nowhere = await hosts.enter_async_context(answering(None)) if is_silent else "127.0.0.1:1"
        wrong = [await hosts.enter_async_context(advertising(kafka.bootstrap_servers, nowhere)) for _ in range(5)]
        settings = settings_at(*wrong, kafka.bootstrap_servers, prefix=topic_prefix)
        async with asyncio.timeout(60):
            assert (await probe_kafka(settings, 1_000)).brokers == 1
            publisher = kafka_publisher(settings, "0" * 32)
            try:
                await publisher.open(None, settle=False)
            finally:
                await publisher.close()


async def test_broker_that_moved_is_found_by_the_bootstrap_servers(kafka: EmbeddedKafka) -> None:
    """A running client knows the former address alone."""
    async with AsyncExitStack() as stack:
        ways = {}
        for _ in range(2):
            way = await stack.enter_async_context(AsyncExitStack())
            ways[await way.enter_async_context(advertising(kafka.bootstrap_servers, OWN))] = way
        client = BrokerClient.adopt(AIOKafkaClient(bootstrap_servers=",".join(ways)))
        try:
            async with asyncio.timeout(30):
                await client.bootstrap()
                (former,) = client.cluster.brokers()
                await ways[f"{former.host}:{former.port}"].aclose()
                for connection in list(client._conns.values()):
                    connection.close()
                assert await client.force_metadata_update()
                assert client.cluster.brokers() != {former}
                assert client.trouble() is None
        finally:
            await client.close()


async def test_check_tries_every_broker(kafka: EmbeddedKafka) -> None:
    """One that cannot be reached may lead our partitions, although another one answers all questions."""
    async with advertising(kafka.bootstrap_servers, OWN, "127.0.0.1:1") as address:
        (finding, *_) = [each for each in await run_checks(settings_at(address)) if each.subject == "Kafka"]
    assert finding.severity is Severity.FAILED
    assert "broker 2 at 127.0.0.1:1 refuses connections" in finding.text


async def test_name_with_an_address_that_drops_packets_is_reached_by_the_other(
    kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as IPv6 that a firewall drops, and which the system prefers."""
    port = int(kafka.bootstrap_servers.rpartition(":")[2])
    resolve = socket.getaddrinfo

    def of_pair(host: str, *arguments: Any, **options: Any) -> Any:
        if host != "pair.test":
            return resolve(host, *arguments, **options)
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kind, ("127.0.0.2", port)), (*kind, ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", of_pair)
    with black_hole("127.0.0.2", port):
        async with asyncio.timeout(60):
            assert (await probe_kafka(settings_at(f"pair.test:{port}"), 1_000)).brokers == 1


async def test_one_sentence_reports_every_host(wrong_hosts: list[str]) -> None:
    """An operator sees which of the hosts is what, also before the last of them has timed out."""
    silent, hole, reset, web, other, refusing, nameless = wrong_hosts
    expected = [
        f"{silent} accepts connections and does not answer to Kafka's protocol yet",
        f"{hole} accepts no connection yet",
        f"{reset} closes the connection at the first request",
        f"{web} is a web server",
        f"{other} answers in another protocol than Kafka's",
        f"{refusing} refuses connections",
        f"{nameless} does not resolve",
        "correct KAFKA_BOOTSTRAP_SERVERS",
    ]
    client = BrokerClient.adopt(AIOKafkaClient(bootstrap_servers=",".join(wrong_hosts)))
    starting = asyncio.ensure_future(client.bootstrap())

    async def says_all() -> bool:
        return all(words in (client.trouble() or "") for words in expected)

    await eventually("each host is named", says_all)
    starting.cancel()
