"""The broker's settings, written to `server.properties`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# Relative to the data folder, in which the broker runs: no path has to be quoted.
LOG_DIRECTORY = "logs"

_FIXED: dict[str, str | int] = {
    "process.roles": "broker,controller",
    "node.id": 1,
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "auto.create.topics.enable": "false",
    # One node cannot replicate.
    "offsets.topic.replication.factor": 1,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    # The default of 50 makes the first use of a group slow.
    "offsets.topic.num.partitions": 1,
    "transaction.state.log.num.partitions": 1,
    "share.coordinator.state.topic.num.partitions": 1,
    "group.initial.rebalance.delay.ms": 0,
    # After kill -9 the controller waits for the old session to end: back in 4 s instead of 12.
    "broker.session.timeout.ms": 2000,
    "broker.heartbeat.interval.ms": 500,
    # The cleaner allocates its buffer at start: 128 MB of the heap by default.
    "log.cleaner.dedupe.buffer.size": 16_777_216,
}


@dataclass(frozen=True)
class Ports:
    """The ports of the broker and its controller."""

    broker: int
    controller: int


def write_properties(
    path: Path, ports: Ports, settings: Mapping[str, str | int], *, log_directory: str = LOG_DIRECTORY
) -> None:
    """Write the file. The ports may differ at each start, since the only voter is named here."""
    lines = {
        **_FIXED,
        "listeners": f"PLAINTEXT://127.0.0.1:{ports.broker},CONTROLLER://127.0.0.1:{ports.controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{ports.broker}",
        "controller.quorum.voters": f"1@127.0.0.1:{ports.controller}",
        "log.dirs": log_directory,
        **settings,
    }
    path.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
