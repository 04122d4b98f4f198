"""
aiokafka's client, reaching brokers in time: it tries all bootstrap servers at once, and waits for no silent broker.

aiokafka asks one bootstrap server after the other, and connects to one broker at a time, each for the time of a whole
request. Its producer, consumer and admin client create their client themselves, so `adopt` changes the class of that.
It replaces `bootstrap`, `_metadata_update` and `_get_conn`, and depends on the attributes that these use.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, Self

from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import MetadataEmptyBrokerList, NodeNotReadyError
from aiokafka.protocol.metadata import MetadataRequest

from hedgelock_ingest.kafka.broker_connection import BrokerConnection, connect_to, first_success
from hedgelock_ingest.kafka.connection_failures import (
    Attempt,
    NoBrokerReached,
    Phase,
    Security,
    advertised_failure,
    bootstrap_failure,
)

CONNECT_TIMEOUT_S = 5.0
"""How long a broker may take to accept a connection, to log a client in, and to answer the first request."""
_BOOTSTRAP_STAGGER_S = 0.1
"""The head start of a bootstrap server or broker, so that a healthy cluster gets one connection."""


class _Start(NamedTuple):
    """A connected broker, and the bootstrap server and the metadata that led to it; `unreached` by broker id."""

    bootstrap: Attempt
    node_id: int
    connection: BrokerConnection
    metadata: Any
    unreached: dict[int, Attempt]


class BrokerClient(AIOKafkaClient):  # type: ignore[misc]  # aiokafka has no types
    """The connections and the metadata of one producer, consumer or admin client."""

    _bootstraps: list[Attempt]
    _advertised: dict[str, dict[int, Attempt]]
    _bootstrap_address: str
    _unreached: dict[int, Attempt]
    _silent: set[int]
    _locks: dict[tuple[int, int], asyncio.Lock]

    @classmethod
    def adopt(cls, client: AIOKafkaClient) -> Self:
        """Turn a client of aiokafka that is not connected into one of this class."""
        client.__class__ = cls
        client._bootstraps, client._advertised, client._bootstrap_address = [], {}, ""
        client._unreached, client._silent, client._locks = {}, set(), defaultdict(asyncio.Lock)
        adopted: Self = client
        return adopted

    async def bootstrap(self) -> None:
        """
        Connect to a broker by the bootstrap server that leads to one first, and take the metadata from that server.

        Raises:
            NoBrokerReached: No bootstrap server answers, or no broker where they advertise; the message is complete.
        """
        start = await self._first_start()
        self.cluster.update_metadata(start.metadata)
        self._sync_task = asyncio.create_task(self._md_synchronizer())

    async def reach_all(self) -> str | None:
        """Connect to every broker; return the message about those that are not reached, None if all are."""
        await asyncio.gather(*(self._get_conn(node_id) for node_id in self._nodes()))
        return self.trouble()

    def trouble(self) -> str | None:
        """Return what is known now of brokers that are not reached, as the message of an error; None if nothing is."""
        if self._bootstraps:
            return str(self._start_failure())
        unreached = {node: each for node, each in self._unreached.items() if self.cluster.broker_metadata(node)}
        return str(self._advertised_failure(unreached)) if unreached else None

    def get_random_node(self) -> int | None:
        """Return a broker, one with an open connection if there is any."""
        return next(iter(self._nodes()), None)

    async def send(self, node_id: int, request: Any, *, group: int = ConnectionGroup.DEFAULT) -> Any:
        """Send a request to a broker, and return its answer; raises aiokafka's `KafkaError`."""
        try:
            return await super().send(node_id, request, group=group)
        except NodeNotReadyError as error:
            unreached = self._unreached.get(node_id)
            if unreached is None:
                raise
            raise self._advertised_failure({node_id: unreached}) from error

    async def _ask(self, attempt: Attempt) -> tuple[BrokerConnection, Any]:
        """Connect to a bootstrap server, and return the connection and the description of the cluster."""
        connection = None
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                connection = await connect_to(attempt, **self._connection_options)
                attempt.reach(Phase.METADATA)
                metadata = await connection.send(MetadataRequest([]))
                if not metadata.brokers:  # it has just started
                    raise MetadataEmptyBrokerList
        except BaseException as error:
            if isinstance(error, Exception):
                attempt.error = error
            if connection is not None:
                connection.close()
            raise
        return connection, metadata

    async def _first_start(self) -> _Start:
        """Keep the first broker that is reached by a bootstrap server; raises `NoBrokerReached`."""
        self._bootstraps, self._advertised = [Attempt(host, port) for host, port, _ in self.hosts], {}
        steps = [partial(self._start_from, attempt) for attempt in self._bootstraps]
        try:
            start = await first_success(
                steps, stagger_s=_BOOTSTRAP_STAGGER_S, discard=lambda each: each.connection.close()
            )
        except Exception as error:
            raise self._start_failure() from error
        self._bootstraps, self._bootstrap_address = [], start.bootstrap.address
        self._unreached = start.unreached
        silent = self._conns.pop((start.node_id, ConnectionGroup.DEFAULT), None)
        if silent is not None:
            silent.close()
        self._conns[start.node_id, ConnectionGroup.DEFAULT] = start.connection
        start.connection._on_close_cb = self._on_connection_closed
        return start

    async def _start_from(self, bootstrap: Attempt) -> _Start:
        """Keep the connection to the bootstrap server if it is a broker's address, else connect to any broker."""
        connection, metadata = await self._ask(bootstrap)
        attempts = {node_id: Attempt(host, port) for node_id, host, port, *_ in metadata.brokers}
        for node_id, attempt in attempts.items():
            if (attempt.host, attempt.port) == (bootstrap.host, bootstrap.port):
                return _Start(bootstrap, node_id, connection, metadata, {})
        connection.close()
        self._advertised[bootstrap.address] = attempts
        steps = [partial(self._connect, node_id, attempt) for node_id, attempt in attempts.items()]
        random.shuffle(steps)
        node_id, connection = await first_success(
            steps, stagger_s=_BOOTSTRAP_STAGGER_S, discard=lambda each: each[1].close()
        )
        unreached = {node: each for node, each in attempts.items() if each.error is not None}
        return _Start(bootstrap, node_id, connection, metadata, unreached)

    async def _connect(self, node_id: int, attempt: Attempt) -> tuple[int, BrokerConnection]:
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                return node_id, await connect_to(attempt, **self._connection_options)
        except Exception as error:
            attempt.error = error
            raise

    def _start_failure(self) -> NoBrokerReached:
        for address, attempts in self._advertised.items():
            return advertised_failure(address, attempts, self._security)
        return bootstrap_failure(self._bootstraps, self._security)

    async def _metadata_update(self, cluster_metadata: Any, topics: Sequence[str]) -> bool:
        """Update the metadata from any broker, else by the bootstrap servers; aiokafka would create missing topics."""
        request = MetadataRequest(list(topics) if topics else None, allow_auto_topic_creation=False)
        for node_id in self._nodes():
            connection = await self._get_conn(node_id)
            if connection is None:
                continue
            try:
                async with asyncio.timeout(self._connect_timeout_s):
                    metadata = await connection.send(request)
                if not metadata.brokers:
                    return False
                cluster_metadata.update_metadata(metadata)
            except Exception:  # noqa: BLE001  # as in `_get_conn`
                self._silent.add(node_id)
                continue
            self._silent.discard(node_id)
            return True
        try:  # the brokers may have moved to other addresses
            start = await self._first_start()
            async with asyncio.timeout(self._connect_timeout_s):
                metadata = await start.connection.send(request)
            if not metadata.brokers:
                raise MetadataEmptyBrokerList
            cluster_metadata.update_metadata(metadata)
        except Exception:  # noqa: BLE001  # as in `_get_conn`
            cluster_metadata.failed_update(None)
            return False
        finally:
            self._bootstraps = []
        return True

    async def _get_conn(
        self, node_id: int, *, group: int = ConnectionGroup.DEFAULT, no_hint: bool = False
    ) -> AIOKafkaConnection | None:
        """Return the connection to a broker, opened if necessary; None if it is not reached."""
        try:
            return await self._reach(node_id, group)
        except Exception:  # noqa: BLE001  # `_unreached` keeps it; aiokafka's task that renews metadata must not end
            self.force_metadata_update()
            return None

    async def _reach(self, node_id: int, group: int = ConnectionGroup.DEFAULT) -> AIOKafkaConnection:
        open_connection = self._open(node_id, group)
        if open_connection is not None:
            return open_connection
        async with self._locks[node_id, group]:
            open_connection = self._open(node_id, group)
            if open_connection is not None:
                return open_connection
            broker = self.cluster.broker_metadata(node_id)
            if broker is None:
                raise NodeNotReadyError(f"broker {node_id} is not in the metadata")
            attempt = Attempt(broker.host, broker.port)
            self._unreached.setdefault(node_id, attempt)  # the last result, if any, stays until this one ends
            try:
                async with asyncio.timeout(self._connect_timeout_s):
                    connection = await connect_to(
                        attempt, on_close=self._on_connection_closed, **self._connection_options
                    )
            except Exception as error:
                attempt.error = error
                self._unreached[node_id] = attempt
                raise
            self._unreached.pop(node_id, None)
            self._conns[node_id, group] = connection
            return connection

    def _open(self, node_id: int, group: int) -> AIOKafkaConnection | None:
        connection = self._conns.get((node_id, group))
        if connection is None or connection.connected():
            return connection
        del self._conns[node_id, group]
        return None

    def _nodes(self) -> list[int]:
        """Return the brokers in random order, those first that have an open connection and answered the last time."""
        nodes = [broker.nodeId for broker in self.cluster.brokers()]
        random.shuffle(nodes)
        return sorted(nodes, key=lambda node: node in self._silent or self._open(node, ConnectionGroup.DEFAULT) is None)

    def _advertised_failure(self, unreached: dict[int, Attempt]) -> NoBrokerReached:
        return advertised_failure(self._bootstrap_address, unreached, self._security)

    @property
    def _connect_timeout_s(self) -> float:
        return min(CONNECT_TIMEOUT_S, float(self._request_timeout_ms / 1000))

    @property
    def _security(self) -> Security:
        return Security(self._security_protocol, self._sasl_mechanism, self._sasl_plain_username)

    @property
    def _connection_options(self) -> dict[str, Any]:
        return {
            "client_id": self._client_id,
            "request_timeout_ms": self._request_timeout_ms,
            "ssl_context": self._ssl_context,
            "security_protocol": self._security_protocol,
            "max_idle_ms": self._connections_max_idle_ms,
            "sasl_mechanism": self._sasl_mechanism,
            "sasl_plain_username": self._sasl_plain_username,
            "sasl_plain_password": self._sasl_plain_password,
        }
