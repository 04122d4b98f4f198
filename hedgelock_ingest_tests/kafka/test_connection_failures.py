"""Each failure to reach a host says what is there, and which setting to change."""

import ssl
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import trustme

from hedgelock_ingest.errors import KafkaUnavailable
from hedgelock_ingest.kafka.probe import probe_kafka
from hedgelock_ingest.settings import Settings
from hedgelock_ingest_tests.kafka.hosts import answering, resetting

WEB = b"HTTP/1.1 400 Bad Request\r\n\r\n"
TLS_ALERT = b"\x15\x03\x03\x00\x02\x02\x28"
"""A fatal alert, handshake_failure. Source: RFC 8446, sections 5.1 and 6."""
PLAINTEXT: dict[str, Any] = {}
SSL: dict[str, Any] = {"kafka_security_protocol": "SSL"}
LOGIN: dict[str, Any] = {
    "kafka_security_protocol": "SASL_PLAINTEXT",
    "kafka_sasl_username": "ingest",
    "kafka_sasl_password": "s3cret",
}


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Return an authority that nobody knows."""
    return trustme.CA()


@pytest.fixture(scope="module")
def tls(authority: trustme.CA) -> ssl.SSLContext:
    """Return the server's side of TLS, with a certificate for 127.0.0.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


async def words_about(servers: str, **fields: Any) -> str:
    """Return the message of a failure to reach a host."""
    with pytest.raises(KafkaUnavailable) as failed:
        await probe_kafka(Settings(kafka_bootstrap_servers=servers, **fields), 10)
    return str(failed.value)


@pytest.mark.parametrize(
    ("host", "fields", "found", "action"),
    [
        (lambda: answering(WEB), PLAINTEXT, "is a web server", "KAFKA_BOOTSTRAP_SERVERS"),
        (lambda: answering(WEB), LOGIN, "is a web server", "KAFKA_BOOTSTRAP_SERVERS"),
        (lambda: answering(WEB), SSL, "does not answer in TLS", "KAFKA_SECURITY_PROTOCOL is SSL"),
        (lambda: answering(TLS_ALERT), PLAINTEXT, "expects TLS", "KAFKA_SECURITY_PROTOCOL is PLAINTEXT"),
        (lambda: answering(TLS_ALERT), LOGIN, "expects TLS", "such as to SASL_SSL"),
        (lambda: answering(TLS_ALERT), SSL, "refuses our side of TLS", "KAFKA_SSL_CERTFILE"),
        (lambda: answering(b"\0\0\0\x06abcdef"), PLAINTEXT, "another protocol", "KAFKA_BOOTSTRAP_SERVERS"),
        (lambda: answering(b""), PLAINTEXT, "closes the connection at the first request", "such as to SSL"),
        (resetting, SSL, "closes the connection when TLS begins", "such as to PLAINTEXT"),
    ],
)
async def test_each_host_is_named(
    host: Callable[[], AbstractAsyncContextManager[str]], fields: dict[str, Any], found: str, action: str
) -> None:
    """A web server, another protocol, a port with TLS or without."""
    async with host() as address:
        words = await words_about(address, **fields)
    assert f"{address} {found}" in words or found in words.partition(address)[2]
    assert action in words.partition(found)[2]
    assert "s3cret" not in words


async def test_certificates_are_told_apart(authority: trustme.CA, tls: ssl.SSLContext, tmp_path: Path) -> None:
    """One that nobody signed, one for another name, and a sound one of what is no broker."""
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    async with answering(WEB, tls) as address:
        assert "certificate that is not accepted here" in (unknown := await words_about(address, **SSL))
        assert "set KAFKA_SSL_CAFILE" in unknown
        known = {**SSL, "kafka_ssl_cafile": file}
        other_name = await words_about(address.replace("127.0.0.1", "localhost"), **known)
        assert "certificate for other names" in other_name
        assert "is a web server" in await words_about(address, **known)
        assert "as a port with TLS" in await words_about(address)
