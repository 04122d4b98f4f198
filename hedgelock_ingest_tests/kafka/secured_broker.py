"""A broker with every kind of listener, an authorizer, and two users, whose permissions a test sets."""

import argparse
import shlex
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Int8, Int16, Int32, Schema, String
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from pydantic import SecretStr

from hedgelock_ingest.kafka.topic_admin import check_topics
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest.sandbox.kafka.tcp_ports import free_port
from hedgelock_ingest.settings import Settings
from hedgelock_ingest_tests.processes.stage import eventually

PASSWORD = "right"
_LISTENERS = {
    "PLAINTEXT": "PLAINTEXT",
    "CONTROLLER": "PLAINTEXT",
    "LOGIN": "SASL_PLAINTEXT",
    "TLS": "SSL",
    "CERTIFICATE": "SSL",
    "LOST": "PLAINTEXT",
    "NAMELESS": "PLAINTEXT",
}
_ADVERTISED = {"LOST": "127.0.0.1:1", "NAMELESS": "broker.invalid:9092"}
_RESOURCES = {"topic": 2, "cluster": 4}
_PATTERNS = {"literal": 3, "prefixed": 4}
_OPERATIONS = {"Read": 3, "Write": 4, "Create": 5, "Describe": 8, "DescribeConfigs": 10, "IdempotentWrite": 12}
_DENY, _ALLOW = 2, 3
"""Source: Apache Kafka, `ResourceType`, `PatternType`, `AclOperation`, `AclPermissionType`."""


@dataclass(frozen=True)
class SecuredBroker:
    """
    A running broker.

    Listeners: `PLAINTEXT`, whose users may do everything, `LOGIN` for users of ours, `TLS`, `CERTIFICATE`, which
    requires one of its clients, and `LOST` and `NAMELESS`, which advertise addresses that cannot be reached.
    """

    kafka: EmbeddedKafka
    ports: dict[str, int]
    ca_file: Path

    def address(self, listener: str) -> str:
        """Return the address of a listener."""
        return f"127.0.0.1:{self.ports[listener]}"

    def settings(self, listener: str, prefix: str = "", **fields: Any) -> Settings:
        """Return settings for a listener, with a prefix of all topics."""
        defaults: dict[str, Any] = {topic.setting: prefix + topic.value for topic in Topic}
        return Settings(**{"kafka_bootstrap_servers": self.address(listener), **defaults, **fields})

    def settings_of(self, user: str, prefix: str = "", **fields: Any) -> Settings:
        """Return settings of a user who logs in."""
        login: dict[str, Any] = {
            "kafka_security_protocol": "SASL_PLAINTEXT",
            "kafka_sasl_username": user,
            "kafka_sasl_password": SecretStr(PASSWORD),
        }
        return self.settings("LOGIN", prefix, **{**login, **fields})

    async def deny(self, user: str, topic: str) -> None:
        """Deny a user to read and to write a topic, whatever was allowed."""
        rules = _rules("topic", topic, user, ["Read", "Write"], _DENY)
        async with self._admin() as admin:
            answer = await admin._send_request(_CreateRules(rules))
        assert [each[0] for each in answer.results] == [0] * len(rules)

    async def deny_no_more(self, user: str, topic: str) -> None:
        """End what `deny` did."""
        rules = _rules("topic", topic, user, ["Read", "Write"], _DENY)
        async with self._admin() as admin:
            answer = await admin._send_request(_DeleteRules(rules))
        assert [(code, len(deleted)) for code, _, deleted in answer.results] == [(0, 1)] * len(rules)

    async def allow(self, kafka_acls: str, settings: Settings) -> None:
        """Run a command line of `kafka-acls --add`, and wait until the user of these settings has the permission."""
        options = _parser().parse_args(shlex.split(kafka_acls))
        names = [("topic", name) for name in options.topic] + [("cluster", "kafka-cluster")] * options.cluster
        rules = [
            rule
            for kind, name in names
            for user in options.principal
            for rule in _rules(kind, name, user, options.operation, _ALLOW, options.pattern)
        ]
        async with self._admin() as admin:
            answer = await admin._send_request(_CreateRules(rules))
        assert [each[0] for each in answer.results] == [0] * len(rules)

        async def is_allowed() -> bool:
            reports = [each for each in await check_topics(settings) if each.name.startswith(tuple(options.topic))]
            return not any(operation in report.denied for report in reports for operation in options.operation)

        await eventually(f"allowed: {kafka_acls}", is_allowed)

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.address("PLAINTEXT"))
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()


@contextmanager
def secured_broker(folder: Path) -> Iterator[SecuredBroker]:
    """Start a broker whose keys are in a folder."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate = authority.issue_cert("127.0.0.1")
    key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
    chain = b"".join(each.bytes() for each in certificate.cert_chain_pems)
    (folder / "broker.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + chain)
    ports = {name: free_port() for name in _LISTENERS}
    addresses = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    clients = {name: address for name, address in addresses.items() if name != "CONTROLLER"}
    login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    settings = {
        "listeners": _listeners(addresses),
        "advertised.listeners": _listeners(clients | _ADVERTISED),
        "controller.quorum.voters": f"1@{addresses['CONTROLLER']}",
        "listener.security.protocol.map": ",".join(f"{name}:{protocol}" for name, protocol in _LISTENERS.items()),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.login.plain.sasl.jaas.config": f'{login} user_ingest="{PASSWORD}" user_reader="{PASSWORD}";',
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(folder / "broker.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(folder / "ca.pem"),
        "listener.name.certificate.ssl.client.auth": "required",
    }
    with EmbeddedKafka(port=ports["PLAINTEXT"], settings=settings) as kafka:
        yield SecuredBroker(kafka, ports, folder / "ca.pem")


def _listeners(addresses: dict[str, str]) -> str:
    return ",".join(f"{name}://{address}" for name, address in addresses.items())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("kafka-acls")
    parser.add_argument("command", choices=["kafka-acls"])
    parser.add_argument("--bootstrap-server")
    parser.add_argument("--command-config")
    parser.add_argument("--add", action="store_true", required=True)
    parser.add_argument("--allow-principal", dest="principal", action="append", required=True)
    parser.add_argument("--operation", action="append", required=True)
    parser.add_argument("--topic", action="append", default=[])
    parser.add_argument("--cluster", action="store_true")
    parser.add_argument("--resource-pattern-type", dest="pattern", default="literal")
    return parser


type _Rule = tuple[int, str, int, str, str, int, int]
"""Type and name of a resource, type of the pattern, principal, host, operation, permission."""


def _rules(
    kind: str, name: str, user: str, operations: Sequence[str], permission: int, pattern: str = "literal"
) -> list[_Rule]:
    return [
        (_RESOURCES[kind], name, _PATTERNS[pattern], user, "*", _OPERATIONS[operation], permission)
        for operation in operations
    ]


_RULE = (
    ("resource_type", Int8),
    ("resource_name", String("utf-8")),
    ("pattern_type", Int8),
    ("principal", String("utf-8")),
    ("host", String("utf-8")),
    ("operation", Int8),
    ("permission", Int8),
)
_RESULT = (("error_code", Int16), ("error_message", String("utf-8")))


class _Created(Response):  # type: ignore[misc]  # aiokafka has no types
    API_KEY = 30
    API_VERSION = 1
    SCHEMA = Schema(("throttle_time_ms", Int32), ("results", Array(*_RESULT)))


class _Create(RequestStruct):  # type: ignore[misc]
    API_KEY = 30
    API_VERSION = 1
    RESPONSE_TYPE = _Created
    SCHEMA = Schema(("rules", Array(*_RULE)))


class _Deleted(Response):  # type: ignore[misc]
    API_KEY = 31
    API_VERSION = 1
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("results", Array(*_RESULT, ("deleted", Array(*_RESULT, *_RULE)))),
    )


class _Delete(RequestStruct):  # type: ignore[misc]
    API_KEY = 31
    API_VERSION = 1
    RESPONSE_TYPE = _Deleted
    SCHEMA = Schema(("rules", Array(*_RULE)))


class _CreateRules(Request[_Create]):  # type: ignore[misc]
    """A request of `kafka-acls --add`. Source: Apache Kafka, "Protocol", CreateAcls API, version 1."""

    API_KEY = 30

    def __init__(self, rules: Sequence[_Rule]) -> None:
        self._rules = rules

    def build(self, request_struct_class: type[RequestStruct]) -> RequestStruct:
        return request_struct_class(list(self._rules))


class _DeleteRules(Request[_Delete]):  # type: ignore[misc]
    """A request of `kafka-acls --remove`. Source: Apache Kafka, "Protocol", DeleteAcls API, version 1."""

    API_KEY = 31

    def __init__(self, rules: Sequence[_Rule]) -> None:
        self._rules = rules

    def build(self, request_struct_class: type[RequestStruct]) -> RequestStruct:
        return request_struct_class(list(self._rules))
