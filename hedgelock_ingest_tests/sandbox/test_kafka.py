"""The embedded Kafka: a real broker with faults for tests, which ends with its parent process."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import MessageSizeTooLargeError

from hedgelock_ingest.errors import DataFolderInUse, SandboxError
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka, broker, guard
from hedgelock_ingest.sandbox.kafka.tcp_ports import free_port
from hedgelock_ingest_tests.kafka.read_topic import read_topic

StartKafka = Callable[..., EmbeddedKafka]


async def create_topic(kafka: EmbeddedKafka, topic: str, partitions: int = 1) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, partitions, 1)])
    finally:
        await admin.close()


async def send(kafka: EmbeddedKafka, topic: str, *values: bytes) -> None:
    async with AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers, enable_idempotence=True, max_request_size=4_000_000
    ) as producer:
        for value in values:
            await producer.send_and_wait(topic, value)


async def values_in(kafka: EmbeddedKafka, topic: str) -> list[bytes | None]:
    return [record.value for record in await read_topic(kafka.bootstrap_servers, topic)]


def wait_until(is_so: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, f"not so within {timeout_s} s"
        time.sleep(0.02)


async def test_a_record_sent_is_read_back(kafka: EmbeddedKafka, topic_prefix: str) -> None:
    """A stock client creates a topic, sends, and reads the same bytes."""
    topic = topic_prefix + "records"
    await create_topic(kafka, topic)

    await send(kafka, topic, b"first", b"second")

    assert await values_in(kafka, topic) == [b"first", b"second"]


async def test_a_topic_is_read_in_offset_order_and_only_to_its_end(kafka: EmbeddedKafka, topic_prefix: str) -> None:
    """The reader that other tests rely on keeps the order of each partition, and returns at the last record."""
    topic = topic_prefix + "ordered"
    await create_topic(kafka, topic, partitions=3)
    await send(kafka, topic, *(b"%d" % number for number in range(60)))

    records = await read_topic(kafka.bootstrap_servers, topic)

    assert sorted(int(record.value or b"") for record in records) == list(range(60))
    places = [(record.partition, record.offset) for record in records]
    assert places == sorted(places)


async def test_an_empty_topic_is_read_as_nothing(kafka: EmbeddedKafka, topic_prefix: str) -> None:
    """A reader of a topic without records must not wait for the first."""
    topic = topic_prefix + "empty"
    await create_topic(kafka, topic, partitions=6)

    assert await read_topic(kafka.bootstrap_servers, topic) == []


async def test_topics_are_not_created_by_requests_about_them(kafka: EmbeddedKafka, topic_prefix: str) -> None:
    """A misspelt topic must fail a test, not be created and receive its records."""
    with pytest.raises(AssertionError, match="there is no topic"):
        await read_topic(kafka.bootstrap_servers, topic_prefix + "misspelt")


async def test_a_killed_broker_comes_back_with_its_data(own_kafka: StartKafka) -> None:
    """The crash tests of the pipeline rely on this: same address, same records."""
    kafka = own_kafka()
    address, first_pid = kafka.bootstrap_servers, kafka.pid
    await create_topic(kafka, "kept")
    await send(kafka, "kept", b"before")

    kafka.kill()
    assert not psutil.pid_exists(first_pid)
    await asyncio.to_thread(kafka.restart)
    await send(kafka, "kept", b"after")

    assert kafka.bootstrap_servers == address
    assert kafka.pid != first_pid
    assert await values_in(kafka, "kept") == [b"before", b"after"]


@pytest.mark.proof
async def test_a_frozen_broker_answers_only_when_thawed(own_kafka: StartKafka) -> None:
    """A stall without a closed connection is the outage that clients detect last."""
    kafka = own_kafka()
    await create_topic(kafka, "stalled")

    kafka.freeze()
    sending = asyncio.create_task(send(kafka, "stalled", b"late"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(sending), timeout=1)
    kafka.thaw()
    await sending

    assert await values_in(kafka, "stalled") == [b"late"]


@pytest.mark.proof
async def test_a_data_folder_is_continued_by_the_next_broker(tmp_path: Path, own_kafka: StartKafka) -> None:
    """A sandbox that was stopped continues on its data after the next start, on any port."""
    first = own_kafka(tmp_path / "data")
    await create_topic(first, "kept")
    await send(first, "kept", b"yesterday")
    first.stop()

    second = own_kafka(tmp_path / "data")

    assert await values_in(second, "kept") == [b"yesterday"]


@pytest.mark.proof
async def test_settings_reach_the_broker(own_kafka: StartKafka) -> None:
    """Tests of refused records lower the broker's limit of a record's size."""
    kafka = own_kafka(settings={"message.max.bytes": 2000})
    await create_topic(kafka, "small")

    await send(kafka, "small", bytes(1000))
    with pytest.raises(MessageSizeTooLargeError):
        await send(kafka, "small", bytes(3000))


def test_a_temporary_data_folder_is_removed_with_the_broker() -> None:
    """Hundreds of test runs must not fill the disk."""
    with EmbeddedKafka() as kafka:
        pid, folder = kafka.pid, kafka.data_directory
        assert folder.is_dir()

    assert not folder.exists()
    assert not psutil.pid_exists(pid)


@pytest.mark.proof
def test_a_broker_started_in_a_thread_outlives_the_thread(own_kafka: StartKafka) -> None:
    """Event loops start it in a worker thread, and Linux's death signal would follow that thread's end."""
    started: list[EmbeddedKafka] = []
    thread = threading.Thread(target=lambda: started.append(own_kafka()))
    thread.start()
    thread.join()

    with pytest.raises(psutil.TimeoutExpired):
        psutil.Process(started[0].pid).wait(timeout=1)


A_PARENT = """
import sys
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
kafka = EmbeddedKafka()
kafka.start()
print(kafka.pid, kafka.data_directory, flush=True)
sys.stdin.read()
"""


@pytest.mark.proof
@pytest.mark.parametrize("is_frozen", [False, True])
def test_no_broker_outlives_a_killed_parent(*, is_frozen: bool) -> None:
    """After kill -9 neither the process nor the temporary folder is left, in any state of the broker."""
    command = [sys.executable, "-c", A_PARENT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        pid, folder = parent.stdout.readline().split()
        if is_frozen:
            os.kill(int(pid), signal.SIGSTOP)
        assert psutil.pid_exists(int(pid))

        parent.kill()

        wait_until(lambda: not psutil.pid_exists(int(pid)), timeout_s=5)
        wait_until(lambda: not Path(folder).exists(), timeout_s=5)


@pytest.mark.proof
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child when its parent ends")
def test_no_broker_outlives_a_killed_guard(own_kafka: StartKafka) -> None:
    """The process between us and the broker may be killed as well, such as by the out-of-memory killer."""
    kafka = own_kafka()

    os.kill(psutil.Process(kafka.pid).ppid(), signal.SIGKILL)

    wait_until(lambda: not psutil.pid_exists(kafka.pid), timeout_s=5)
    assert not kafka.is_running


def test_a_taken_port_is_named() -> None:
    """The usual reason for a failed start is another Kafka on 9092."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        with pytest.raises(SandboxError, match=f"port {port} of 127.0.0.1 is taken"):
            EmbeddedKafka(port=port).start()


@pytest.mark.proof
def test_a_port_lost_while_starting_is_replaced(monkeypatch: pytest.MonkeyPatch, own_kafka: StartKafka) -> None:
    """Another process may take a free port between its choice and its use."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        lost = other.getsockname()[1]
        choices = iter([lost])
        monkeypatch.setattr(broker, "free_port", lambda **besides: next(choices, None) or free_port(**besides))

        kafka = own_kafka()

        assert not kafka.bootstrap_servers.endswith(f":{lost}")


def test_no_free_port_is_returned_twice() -> None:
    """Broker and controller, or two servers of a test, choose their ports before either listens."""
    mine = free_port()

    others = [free_port(other_than=mine) for _ in range(12_000)]

    assert mine not in others
    assert len(set(others[:10_000])) == 10_000


@pytest.mark.proof
def test_a_data_folder_in_use_is_refused(tmp_path: Path, own_kafka: StartKafka) -> None:
    """Two brokers on one folder would damage it; the second must not affect the first."""
    first = own_kafka(tmp_path)

    with pytest.raises(DataFolderInUse, match=f"another broker uses the data folder .*process {os.getpid()}"):
        EmbeddedKafka(tmp_path).start()

    assert first.is_running


def test_a_failed_start_quotes_the_log_and_keeps_it(tmp_path: Path) -> None:
    """The error shows why the broker did not start, and where the complete log is."""
    kafka = EmbeddedKafka(tmp_path, settings={"num.io.threads": "many"})

    with pytest.raises(SandboxError, match="Not a number of type INT") as failure:
        kafka.start()

    assert str(kafka.log_file) in str(failure.value)
    assert kafka.log_file.exists()
    assert not kafka.is_running


def test_the_log_does_not_grow_without_bound(tmp_path: Path) -> None:
    """A broker that logs errors for days must not fill the disk; the newest lines are kept."""
    log_file = tmp_path / "broker.log"
    with log_file.open("ab") as log:
        log.write(b"x" * (guard.LOG_LIMIT_BYTES + 1))
        log.flush()

        guard.bound(log_file)
        log.write(b"goes on")

    assert log_file.read_bytes() == b"goes on"
    assert (tmp_path / "broker.log.1").stat().st_size > guard.LOG_LIMIT_BYTES
