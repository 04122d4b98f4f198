"""Connection options of every Kafka client, from the settings, and the errors of its connections."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiokafka.errors import KafkaError as AiokafkaError
from aiokafka.helpers import create_ssl_context

from hedgelock_ingest.errors import KafkaError, KafkaUnavailable
from hedgelock_ingest.settings import Settings


def client_options(settings: Settings) -> dict[str, Any]:
    """
    Return the options that producers, consumers and admin clients of aiokafka share.

    Raises:
        KafkaError: The certificate files cannot be used.
    """
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


def unavailable(settings: Settings, found: str) -> KafkaUnavailable:
    """Return the error of a Kafka that gives no usable answer; `found` is what came instead."""
    return KafkaUnavailable(
        f"no usable answer from Kafka at {settings.kafka_bootstrap_servers} ({found}); "
        "start it, or correct KAFKA_BOOTSTRAP_SERVERS"
    )


@contextmanager
def connection_errors(settings: Settings) -> Iterator[None]:
    """
    Translate errors of aiokafka, of the network and of time-outs.

    Raises:
        KafkaUnavailable: No answer, or not in time.
    """
    try:
        yield
    except (AiokafkaError, OSError) as error:  # a timeout is an OSError, too
        raise unavailable(settings, type(error).__name__) from error


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
