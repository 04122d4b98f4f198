"""A broker for the command line: says where it is, and stays until it is told to stop."""

import json
import signal
from pathlib import Path
from types import FrameType

from hedgelock_ingest.errors import SandboxError
from hedgelock_ingest.sandbox.kafka.broker import EmbeddedKafka


class _StopAsked(BaseException):
    """SIGINT or SIGTERM arrived."""


def serve(*, port: int = 0, data_directory: Path | None = None) -> None:
    """
    Run a broker until SIGINT or SIGTERM; one line of JSON on stdout says when and where it is ready.

    Call it in the main thread.

    Raises:
        SandboxError: The broker cannot be started, or ended although nobody asked.
    """
    kafka = EmbeddedKafka(data_directory, port)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        with kafka:
            print(_addresses(kafka), flush=True)
            kafka.wait()
            raise SandboxError(f"the embedded Kafka ended although nobody asked; its log was {kafka.log_file}")
    except _StopAsked:
        return


def _addresses(kafka: EmbeddedKafka) -> str:
    return json.dumps(
        {
            "bootstrap_servers": kafka.bootstrap_servers,
            "pid": kafka.pid,
            "data_directory": str(kafka.data_directory),
            "log_file": str(kafka.log_file),
        }
    )


def _stop(_number: int, _frame: FrameType | None) -> None:
    # Once is enough: a second Ctrl-C must not interrupt the clean stop.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise _StopAsked
