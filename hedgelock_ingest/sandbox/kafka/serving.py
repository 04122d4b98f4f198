"""A broker for the command line: prints its address, and runs until a signal stops it."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from hedgelock_ingest.errors import SandboxError
from hedgelock_ingest.sandbox.kafka.broker import EmbeddedKafka

_TICK_S = 0.2


class _StopRequested(BaseException):
    """SIGINT or SIGTERM arrived while the broker starts."""


def serve(*, port: int = 0, data_directory: Path | None = None) -> None:
    """
    Run a broker until SIGINT or SIGTERM; one line of JSON on stdout names its address when it is ready.

    Call it in the main thread.

    Raises:
        SandboxError: The broker cannot be started, or ended without a request.
    """
    kafka = EmbeddedKafka(data_directory, port)
    _on_signals(_stop)
    try:
        with kafka:
            print(_addresses(kafka), flush=True)
            _stay(kafka)
    except _StopRequested:
        return


def _stay(kafka: EmbeddedKafka) -> None:
    """
    Return when a stop is requested.

    Signals are recorded and polled: one that arrives right before a blocking call would not end that call.
    """
    received: list[int] = []
    _on_signals(lambda number, _frame: received.append(number))
    while not received:
        if not kafka.is_running:
            raise SandboxError(f"the embedded Kafka ended without a stop request; its log was {kafka.log_file}")
        time.sleep(_TICK_S)


def _on_signals(handler: Callable[[int, FrameType | None], None]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


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
    _on_signals(lambda *_: None)  # a second Ctrl-C must not interrupt the clean stop
    raise _StopRequested
