"""A webhook gets trouble once and its end once, and can neither stop nor block the sensor."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer

import dagster as dg
import pytest
from structlog.testing import capture_logs

from hedgelock_ingest.defs.stream import alerts, heartbeats, sensors
from hedgelock_ingest.defs.stream.jobs import JOB_NAME
from hedgelock_ingest.defs.stream.supervisor import SupervisorTimeouts

SHARD = "main"
TIMEOUTS = SupervisorTimeouts(steady_s=0.0)


class WebhookServer(HTTPServer):
    """A webhook that collects messages; `answer` is its HTTP status."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.texts: list[str] = []
        self.answer = 200

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hooks/of-us"


class _Handler(BaseHTTPRequestHandler):
    server: WebhookServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.answer == 200:
            self.server.texts.append(body["text"])
        self.send_response(self.server.answer)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Suppress the access log."""


@pytest.fixture
def receiver() -> Iterator[WebhookServer]:
    """Listen until the test is over."""
    with WebhookServer() as listening:
        thread = threading.Thread(target=partial(listening.serve_forever, 0.01))
        thread.start()
        yield listening
        listening.shutdown()
        thread.join()


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """Create storage for one test."""
    with dg.DagsterInstance.ephemeral() as opened:
        yield opened


@pytest.fixture
def evaluate(instance: dg.DagsterInstance, receiver: WebhookServer) -> Callable[[], None]:
    """Return the sensor's evaluation, which keeps its cursor between calls."""
    cursor: list[str | None] = [None]

    def evaluate() -> None:
        answer = sensors.evaluate(instance, [SHARD], cursor[-1], TIMEOUTS, alert=partial(alerts.post, receiver.url))
        cursor.append(answer.cursor)

    return evaluate


def fail(instance: dg.DagsterInstance, count: int) -> None:
    """Store failed runs."""
    for _ in range(count):
        tags = {"dagster/partition": SHARD}
        instance.add_run(dg.DagsterRun(JOB_NAME, status=dg.DagsterRunStatus.FAILURE, tags=tags))


def run_well(instance: dg.DagsterInstance) -> None:
    """Store a run that carries the shard."""
    run = dg.DagsterRun(JOB_NAME, status=dg.DagsterRunStatus.STARTED, tags={"dagster/partition": SHARD})
    instance.add_run(run)
    heartbeats.write(instance, SHARD, heartbeats.Heartbeat.of_this_process(run.run_id))


def test_crash_loop_and_its_end_are_each_reported_once(
    instance: dg.DagsterInstance, receiver: WebhookServer, evaluate: Callable[[], None]
) -> None:
    """An operator on call is alerted once, and learns when the trouble is over."""
    fail(instance, 2)
    evaluate()
    evaluate()
    assert len(receiver.texts) == 1
    assert "TROUBLE: main: 2 runs in a row failed early" in receiver.texts[0]
    run_well(instance)
    evaluate()
    evaluate()
    assert len(receiver.texts) == 2
    assert "recovered: main: run" in receiver.texts[1]


def test_single_crash_and_a_healthy_stream_are_not_reported(
    instance: dg.DagsterInstance, receiver: WebhookServer, evaluate: Callable[[], None]
) -> None:
    """The next run starts within seconds; an alert would be noise."""
    fail(instance, 1)
    evaluate()
    run_well(instance)
    evaluate()
    assert receiver.texts == []


def test_alert_that_was_not_accepted_is_sent_again(
    instance: dg.DagsterInstance, receiver: WebhookServer, evaluate: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unavailable webhook must not lose the alert, nor a slow one get it at every evaluation."""
    fail(instance, 2)
    receiver.answer = 503
    evaluate()
    receiver.answer = 200
    evaluate()
    assert receiver.texts == []
    monkeypatch.setattr(sensors, "ALERT_RETRY_S", 0.0)
    evaluate()
    evaluate()
    assert len(receiver.texts) == 1


def test_webhook_on_this_machine_is_reached_directly(receiver: WebhookServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A company's proxy does not reach 127.0.0.1 of this machine."""
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert alerts.post(receiver.url, "trouble")
    assert receiver.texts == ["trouble"]


def test_webhook_that_does_not_answer_does_not_block_and_its_address_stays_secret() -> None:
    """A sensor that blocks stops the daemon's heartbeat."""
    with capture_logs() as logs, socket.create_server(("127.0.0.1", 0)) as silent:
        began_s = time.monotonic()
        assert not alerts.post(f"http://127.0.0.1:{silent.getsockname()[1]}/hooks/of-us", "text")
        assert time.monotonic() - began_s < 30
        assert not alerts.post("http://127.0.0.1:9/hooks/of-us", "text")
    assert "alert_not_accepted" in {line["event"] for line in logs}
    assert "of-us" not in str(logs)
