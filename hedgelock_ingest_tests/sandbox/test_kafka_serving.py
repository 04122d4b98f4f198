"""The broker of the command line: it prints one line of JSON, then runs until a signal stops it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

SERVE = """
import sys
from pathlib import Path
from hedgelock_ingest.sandbox.kafka import serve
serve(data_directory=Path(sys.argv[1]) if sys.argv[1:] else None)
"""


@contextmanager
def a_serving_process(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    command = [sys.executable, "-c", SERVE, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


@pytest.mark.proof
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_served_broker_prints_its_address_and_ends_on_a_signal(number: signal.Signals, tmp_path: Path) -> None:
    """Scripts read the line and stop the sandbox with a signal; its data are closed cleanly."""
    with a_serving_process(str(tmp_path)) as (process, ready):
        assert ready["bootstrap_servers"].startswith("127.0.0.1:")
        assert ready["data_directory"] == str(tmp_path)
        assert Path(ready["log_file"]).is_file()
        assert "java" in psutil.Process(ready["pid"]).name()

        process.send_signal(number)
        output, errors = process.communicate(timeout=30)

    assert (process.returncode, output, errors) == (0, "", "")
    assert not psutil.pid_exists(ready["pid"])
    # Kafka's mark of a clean shutdown.
    assert (tmp_path / "logs" / ".kafka_cleanshutdown").exists()


@pytest.mark.proof
def test_the_command_ends_when_its_broker_dies() -> None:
    """A sandbox without a broker must not appear to run."""
    with a_serving_process() as (process, ready):
        os.kill(ready["pid"], signal.SIGKILL)
        _, errors = process.communicate(timeout=10)

    assert process.returncode == 1
    assert "ended without a stop request" in errors
