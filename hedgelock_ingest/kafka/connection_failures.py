"""Failures to reach a Kafka broker, in words: what answered, what did not, and which side to change."""

import ssl
from asyncio import IncompleteReadError
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from aiokafka.errors import (
    AuthenticationFailedError,
    IllegalSaslStateError,
    IncompatibleBrokerVersion,
    KafkaConnectionError,
    MetadataEmptyBrokerList,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.errors import KafkaError as AiokafkaError

_HOSTNAME_MISMATCH = (62, 64)
"""Source: OpenSSL, X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""
_TLS_ALERT = b"\x15\x03"
"""Source: RFC 8446, section 5.1: content type 21, version 3.x."""


class Phase(Enum):
    """How far an attempt to reach a broker has come; in order."""

    RESOLVE = auto()
    CONNECT = auto()
    TLS = auto()
    VERSIONS = auto()
    LOGIN = auto()
    METADATA = auto()


class NotKafka(AiokafkaError):  # type: ignore[misc]  # aiokafka has no types
    """The first bytes of an answer are not Kafka's; `head` holds them."""

    def __init__(self, head: bytes) -> None:
        super().__init__("the answer is not in Kafka's format")
        self.head = head


class NoBrokerReached(AiokafkaError):  # type: ignore[misc]
    """No broker was reached; the message is complete, with the action to take."""

    retriable = True
    invalid_metadata = True

    def __str__(self) -> str:
        """Return the message without the name of the class."""
        return str(self.args[0])


@dataclass(slots=True)
class Attempt:
    """
    One attempt to reach a broker: its phase, and the error that ended it, None while it goes on.

    `whole` is the attempt of which this one tries a single address; it has the phase of the address that came furthest.
    """

    host: str
    port: int
    whole: "Attempt | None" = None
    phase: Phase = Phase.RESOLVE
    error: BaseException | None = None

    def reach(self, phase: Phase) -> None:
        """Note the next phase."""
        self.phase = phase
        if self.whole is not None and self.whole.phase.value < phase.value:
            self.whole.phase = phase

    @property
    def address(self) -> str:
        """The address as users write it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Security(NamedTuple):
    """The settings of security that a failure may contradict."""

    protocol: str
    mechanism: str | None
    user: str | None

    @property
    def uses_tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.protocol.endswith("SSL")

    @property
    def logs_in(self) -> bool:
        """Whether a user logs in."""
        return self.protocol.startswith("SASL")


class Finding(NamedTuple):
    """What was found at an address, and what to do; None for the usual action, which is to correct the address."""

    found: str
    action: str | None = None


def bootstrap_failure(attempts: Sequence[Attempt], security: Security) -> NoBrokerReached:
    """Return the error of bootstrap servers none of which gave a usable answer."""
    usual = "start the broker, or correct KAFKA_BOOTSTRAP_SERVERS"
    return NoBrokerReached(f"no usable answer from Kafka: {_sentence(_named(attempts), security, usual)}")


def advertised_failure(bootstrap: str, attempts: dict[int, Attempt], security: Security) -> NoBrokerReached:
    """Return the error of brokers that cannot be reached where they advertise; `attempts` by broker id."""
    usual = "correct advertised.listeners of the broker to an address that this machine reaches, or open the way to it"
    named = [(f"broker {node} at {each.address}", each) for node, each in attempts.items()]
    addresses = "the address that it advertises" if len(named) == 1 else "the addresses that its brokers advertise"
    return NoBrokerReached(f"Kafka answers at {bootstrap}, but not at {addresses}: {_sentence(named, security, usual)}")


def _named(attempts: Sequence[Attempt]) -> list[tuple[str, Attempt]]:
    return [(each.address, each) for each in attempts]


def _sentence(named: Sequence[tuple[str, Attempt]], security: Security, usual: str) -> str:
    findings = [(name, finding_of(each, security)) for name, each in named]
    found = dict.fromkeys(f"{name} {finding.found}" for name, finding in findings)
    actions = dict.fromkeys(finding.action or usual for _, finding in findings)
    return "; ".join([", ".join(found), *actions])


def finding_of(attempt: Attempt, security: Security) -> Finding:
    """Return what an attempt found, from its phase and its error."""
    error = attempt.error
    if isinstance(error, KafkaConnectionError) and error.__cause__ is not None:
        error = error.__cause__
    if error is None or isinstance(error, TimeoutError):
        return _no_answer(attempt.phase, error)
    if isinstance(error, NotKafka):
        return _other_protocol(error.head, security)
    match attempt.phase:
        case Phase.RESOLVE:
            return Finding("does not resolve" + _reason(error))
        case Phase.CONNECT if isinstance(error, ConnectionRefusedError):
            return Finding("refuses connections: nothing listens there")
        case Phase.CONNECT:
            return Finding("cannot be connected to" + _reason(error))
        case Phase.TLS | Phase.VERSIONS if isinstance(error, ssl.SSLError) and not _is_end(error):
            return _tls(error, security)
        case Phase.TLS if _is_end(error):
            found = "closes the connection when TLS begins, as a port without TLS or another service does"
            return Finding(found, _other_tls(security))
        case Phase.VERSIONS if _is_end(error):
            found = "closes the connection at the first request"
            if security.uses_tls:
                return Finding(f"{found}, as a port that requires a client certificate does", _CLIENT_CERTIFICATE)
            return Finding(f"{found}, as a port with TLS or another service does", _other_tls(security))
        case Phase.LOGIN:
            return _login(error, security)
        case Phase.METADATA if isinstance(error, IncompatibleBrokerVersion):
            found = "answers as Kafka and describes no cluster, as a controller does"
            return Finding(found, "use the port of a broker in KAFKA_BOOTSTRAP_SERVERS")
        case Phase.METADATA if isinstance(error, MetadataEmptyBrokerList):
            return Finding("names no broker, as one that is starting", "wait, or look into its log")
        case Phase.METADATA if _is_end(error) and not security.logs_in:
            found = "answers as Kafka and then closes the connection, as a port where users log in does"
            protocol = "SASL_SSL" if security.uses_tls else "SASL_PLAINTEXT"
            return Finding(found, f"set KAFKA_SECURITY_PROTOCOL={protocol}, and the KAFKA_SASL_ settings")
    if _is_end(error):
        return Finding("closes the connection")
    return Finding(f"fails with {type(error).__name__}" + _reason(error))


_CLIENT_CERTIFICATE = "set KAFKA_SSL_CERTFILE and KAFKA_SSL_KEYFILE to a certificate that the broker accepts"


def _no_answer(phase: Phase, error: BaseException | None) -> Finding:
    while_waiting = "" if error else " yet"
    match phase:
        case Phase.RESOLVE:
            return Finding(f"is not resolved{while_waiting}: the name service does not answer")
        case Phase.CONNECT:
            return Finding(f"accepts no connection{while_waiting}: a firewall drops it, or the machine is down")
    kind = {Phase.TLS: "TLS", Phase.VERSIONS: "Kafka's protocol", Phase.LOGIN: "the login", Phase.METADATA: "a request"}
    return Finding(
        f"accepts connections and does not answer to {kind[phase]}{while_waiting}: a frozen broker, or another service"
    )


def _other_protocol(head: bytes, security: Security) -> Finding:
    if head.startswith(b"HTTP"):
        return Finding("is a web server", "correct KAFKA_BOOTSTRAP_SERVERS")
    if head.startswith(_TLS_ALERT):
        return Finding("expects TLS", _other_tls(security))
    return Finding("answers in another protocol than Kafka's", "correct KAFKA_BOOTSTRAP_SERVERS")


def _tls(error: ssl.SSLError, security: Security) -> Finding:
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _HOSTNAME_MISMATCH:
            return Finding(
                f"has a certificate for other names ({error.verify_message})",
                "use a name of the certificate in KAFKA_BOOTSTRAP_SERVERS and advertised.listeners, or reissue it",
            )
        return Finding(
            f"has a certificate that is not accepted here ({error.verify_message})",
            "set KAFKA_SSL_CAFILE to the certificate of the authority that signed it, or renew it",
        )
    reason = (error.reason or type(error).__name__).lower().replace("_", " ")
    if "alert" in reason:
        return Finding(f"refuses our side of TLS ({reason})", _CLIENT_CERTIFICATE)
    return Finding(f"does not answer in TLS ({reason})", _other_tls(security))


def _other_tls(security: Security) -> str:
    other = {"PLAINTEXT": "SSL", "SSL": "PLAINTEXT", "SASL_PLAINTEXT": "SASL_SSL", "SASL_SSL": "SASL_PLAINTEXT"}
    return (
        f"KAFKA_SECURITY_PROTOCOL is {security.protocol}: correct it, such as to {other[security.protocol]}, "
        "or use another port in KAFKA_BOOTSTRAP_SERVERS"
    )


def _login(error: BaseException, security: Security) -> Finding:
    if isinstance(error, UnsupportedSaslMechanismError):
        return Finding(
            f"does not offer the login mechanism {security.mechanism}",
            "set KAFKA_SASL_MECHANISM to one of sasl.enabled.mechanisms of the broker",
        )
    if isinstance(error, IllegalSaslStateError) or _is_end(error):
        protocol = "SSL" if security.uses_tls else "PLAINTEXT"
        return Finding(
            "answers as Kafka and refuses a login, as a port without login does",
            f"set KAFKA_SECURITY_PROTOCOL={protocol}, or use a port with login in KAFKA_BOOTSTRAP_SERVERS",
        )
    if isinstance(error, SaslAuthenticationFailed | AuthenticationFailedError) or not isinstance(error, OSError):
        return Finding(
            f"refuses the login of user {security.user} with {security.mechanism}",
            "correct KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD, or create the user with kafka-configs",
        )
    return Finding("ends the login" + _reason(error))


def _is_end(error: BaseException) -> bool:
    """Return whether the other side closed or reset the connection."""
    return isinstance(error, IncompleteReadError | ConnectionError | KafkaConnectionError | ssl.SSLEOFError)


def _reason(error: BaseException) -> str:
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    if isinstance(error, OSError):
        text = text.lower()
    return f" ({text})" if text and text != type(error).__name__ else ""
