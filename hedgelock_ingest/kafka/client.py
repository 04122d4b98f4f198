"""Clients of Kafka, from the settings, and the errors of their calls."""

import ssl
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import ClusterAuthorizationFailedError, TopicAuthorizationFailedError
from aiokafka.helpers import create_ssl_context

from hedgelock_ingest.errors import IngestError, KafkaDenied, KafkaError, KafkaUnavailable
from hedgelock_ingest.kafka.broker_client import BrokerClient
from hedgelock_ingest.kafka.connection_failures import NoBrokerReached
from hedgelock_ingest.settings import Settings


def new_admin(settings: Settings, **options: Any) -> AIOKafkaAdminClient:
    """Create an admin client, not yet connected; raises `KafkaError` if the certificate files cannot be used."""
    admin = AIOKafkaAdminClient(**_connection_options(settings), **options)
    BrokerClient.adopt(admin._client)
    return admin


def new_consumer(settings: Settings, **options: Any) -> AIOKafkaConsumer:
    """Create a consumer without a group, not yet connected; raises as `new_admin`."""
    consumer = AIOKafkaConsumer(**_connection_options(settings), enable_auto_commit=False, **options)
    BrokerClient.adopt(consumer._client)
    return consumer


def new_producer(settings: Settings, **options: Any) -> AIOKafkaProducer:
    """Create an idempotent producer, not yet connected; raises as `new_admin`."""
    producer = AIOKafkaProducer(**_connection_options(settings), enable_idempotence=True, acks="all", **options)
    BrokerClient.adopt(producer.client)
    return producer


@contextmanager
def kafka_errors(
    settings: Settings, client: AIOKafkaAdminClient | AIOKafkaConsumer | AIOKafkaProducer, *, operation: str = "Read"
) -> Iterator[None]:
    """
    Translate every exception of a call to aiokafka, whatever its type: none may end the stream.

    Args:
        settings: Connection options of Kafka.
        client: The client that is called, which knows the brokers that it did not reach.
        operation: Kafka's name of the operation, for a refusal that does not name it.

    Raises:
        KafkaDenied: The user lacks a permission.
        KafkaUnavailable: No answer, not in time, or one that aiokafka cannot use.
    """
    try:
        yield
    except IngestError:
        raise
    except Exception as error:
        raise _translated(settings, client, error, operation) from error


def denied(settings: Settings, operations: Sequence[str], topics: Collection[str]) -> KafkaDenied:
    """Return the error of a user who may not apply operations to topics; without topics, to the cluster."""
    names = sorted(topics)
    resource = "the cluster" if not names else f"the topic {names[0]}" if len(names) == 1 else f"{len(names)} topics"
    options = [
        *(f"--operation {each}" for each in operations),
        *([f"--topic {each}" for each in names] or ["--cluster"]),
    ]
    return KafkaDenied(
        f"Kafka denies {principal(settings)} {', '.join(operations)} on {resource}; allow it with: "
        f"kafka-acls --add --allow-principal {principal(settings)} {' '.join(options)}"
    )


def principal(settings: Settings) -> str:
    """Return Kafka's name of the user, as far as the settings state it."""
    if settings.kafka_security_protocol.startswith("SASL"):
        return f"User:{settings.kafka_sasl_username}"
    if settings.kafka_security_protocol == "SSL" and settings.kafka_ssl_certfile:
        return "User:<subject of the client certificate>"
    return "User:ANONYMOUS"


def unavailable(settings: Settings, found: str) -> KafkaUnavailable:
    """Return the error of a Kafka that answers, but not usably; `found` is what came instead."""
    return KafkaUnavailable(f"no usable answer from Kafka at {settings.kafka_bootstrap_servers}: {found}")


def _translated(settings: Settings, client: Any, error: Exception, operation: str) -> KafkaError:
    if isinstance(error, NoBrokerReached):
        return KafkaUnavailable(str(error))
    if isinstance(error, TopicAuthorizationFailedError):
        names = [name for each in error.args for name in ([each] if isinstance(each, str) else each)]
        return denied(settings, [operation], names)
    if isinstance(error, ClusterAuthorizationFailedError):
        return denied(settings, [operation], ())
    connections: BrokerClient = client.client if isinstance(client, AIOKafkaProducer) else client._client
    if trouble := connections.trouble():
        return KafkaUnavailable(trouble)
    if isinstance(error, TimeoutError):
        return unavailable(settings, "it answers, but not in time")
    name, text = type(error).__name__, str(error)
    return unavailable(settings, text if text.startswith(name) else f"{name} {text}".rstrip())


def _connection_options(settings: Settings) -> dict[str, Any]:
    options: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap_servers,
        "client_id": "hedgelock-ingest",
        "security_protocol": settings.kafka_security_protocol,
    }
    if settings.kafka_security_protocol.endswith("SSL"):
        options["ssl_context"] = _ssl_context(settings)
    if settings.kafka_security_protocol.startswith("SASL"):
        assert settings.kafka_sasl_password is not None
        options["sasl_mechanism"] = settings.kafka_sasl_mechanism
        options["sasl_plain_username"] = settings.kafka_sasl_username
        options["sasl_plain_password"] = settings.kafka_sasl_password.get_secret_value()
    return options


def _ssl_context(settings: Settings) -> ssl.SSLContext:
    password = settings.kafka_ssl_password
    try:
        context: ssl.SSLContext = create_ssl_context(
            cafile=_text(settings.kafka_ssl_cafile),
            certfile=_text(settings.kafka_ssl_certfile),
            keyfile=_text(settings.kafka_ssl_keyfile),
            password=password.get_secret_value() if password else None,
        )
    except (OSError, ValueError) as error:
        raise KafkaError(
            f"the files of KAFKA_SSL_CAFILE, KAFKA_SSL_CERTFILE and KAFKA_SSL_KEYFILE cannot be used: {error}"
        ) from error
    return context


def _text(path: object) -> str | None:
    return None if path is None else str(path)
