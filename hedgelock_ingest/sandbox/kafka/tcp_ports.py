"""Ports for the broker, and the check whether it answers there."""

import random
import socket
import struct
from itertools import cycle, islice

from hedgelock_ingest.errors import SandboxError

# Below the range from which systems take the ports of outgoing connections: a client that keeps connecting to the
# port of an ended broker could otherwise get that same port, and connect to itself.
_FREE_RANGE = range(20_000, 32_000)
_choices = cycle(random.sample(_FREE_RANGE, len(_FREE_RANGE)))
_METADATA = 3


def free_port(*, other_than: int = 0) -> int:
    """
    Return a port that nothing listens on now; another process may take it before it is used.

    Each port is returned once, until all were returned. Raises SandboxError if none is free.
    """
    some = (port for port in islice(_choices, len(_FREE_RANGE)) if port != other_than and is_free(port))
    port = next(some, None)
    if port is None:
        raise SandboxError(f"no port of 127.0.0.1 from {_FREE_RANGE[0]} to {_FREE_RANGE[-1]} is free")
    return port


def check_free(port: int) -> None:
    """Raise SandboxError if another process listens on the port."""
    if not is_free(port):
        raise SandboxError(f"port {port} of 127.0.0.1 is taken; stop what listens there or choose another port")


def is_free(port: int) -> bool:
    """Return whether a server could listen on this port of the loopback interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def is_serving(port: int, timeout_s: float = 1.0) -> bool:
    """
    Ask the broker for the cluster's metadata, and return whether it lists itself.

    A broker answers some requests before it may lead partitions; only after that it is among the brokers.

    Source: Kafka protocol guide, "Metadata API", version 1.
    """
    header = struct.pack(">hhih", _METADATA, 1, 1, -1)
    no_topics = struct.pack(">i", 0)
    request = header + no_topics
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            answer = connection.recv(12, socket.MSG_WAITALL)
    except OSError:
        return False
    if len(answer) < 12:
        return False
    correlation, brokers = struct.unpack_from(">ii", answer, 4)
    return (correlation, brokers) == (1, 1)
