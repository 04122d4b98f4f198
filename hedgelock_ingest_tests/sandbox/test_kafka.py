"""The embedded Kafka: a real broker that survives what tests do to it, and never survives its parent."""

import asyncio
import os
import signal
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

from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.kafka.reading import read_topic

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


def a_process(code: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


async def test_a_record_sent_is_read_back(kafka: EmbeddedKafka, topic_prefix: str) -> None:
    """It is a real broker: a stock client creates a topic, sends, and reads the same bytes."""
    topic = topic_prefix + "records"
    await create_topic(kafka, topic)

    await send(kafka, topic, b"first", b"second")

    assert await values_in(kafka, topic) == [b"first", b"second"]


async def test_a_topic_is_read_in_offset_order_and_only_to_its_end(kafka: EmbeddedKafka, topic_prefix: str) -> None:
    """The reader that other tests rely on keeps the order of each partition, and returns although none follows."""
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


async def test_topics_are_not_created_by_asking_for_them(kafka: EmbeddedKafka, topic_prefix: str) -> None:
    """A misspelt topic must fail a test, not receive its records."""
    with pytest.raises(AssertionError, match="there is no topic"):
        await read_topic(kafka.bootstrap_servers, topic_prefix + "misspelt")


async def test_a_killed_broker_comes_back_with_its_data(own_kafka: StartKafka) -> None:
    """The crash tests of the pipeline stand on this: same address, same records."""
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


async def test_a_frozen_broker_answers_only_when_thawed(own_kafka: StartKafka) -> None:
    """A stall without a closed connection is the outage that clients notice last."""
    kafka = own_kafka()
    await create_topic(kafka, "stalled")

    kafka.freeze()
    sending = asyncio.create_task(send(kafka, "stalled", b"late"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(sending), timeout=1)
    kafka.thaw()
    await sending

    assert await values_in(kafka, "stalled") == [b"late"]


async def test_a_data_folder_is_continued_by_the_next_broker(tmp_path: Path, own_kafka: StartKafka) -> None:
    """A sandbox stopped in the evening goes on in the morning, on any port."""
    first = own_kafka(tmp_path / "data")
    await create_topic(first, "kept")
    await send(first, "kept", b"yesterday")
    first.stop()

    second = own_kafka(tmp_path / "data")

    assert await values_in(second, "kept") == [b"yesterday"]


async def test_settings_reach_the_broker(own_kafka: StartKafka) -> None:
    """Tests of refused records make the broker refuse small ones."""
    kafka = own_kafka(settings={"message.max.bytes": 2000})
    await create_topic(kafka, "small")

    await send(kafka, "small", bytes(1000))
    with pytest.raises(MessageSizeTooLargeError):
        await send(kafka, "small", bytes(3000))


def test_a_temporary_data_folder_goes_with_the_broker() -> None:
    """Hundreds of test runs must not fill the disk."""
    with EmbeddedKafka() as kafka:
        pid, folder = kafka.pid, kafka.data_directory
        assert folder.is_dir()

    assert not folder.exists()
    assert not psutil.pid_exists(pid)


def test_a_broker_started_in_a_thread_outlives_the_thread(own_kafka: StartKafka) -> None:
    """Event loops start it in a worker thread, to which Linux would tie a death signal."""
    started: list[EmbeddedKafka] = []
    thread = threading.Thread(target=lambda: started.append(own_kafka()))
    thread.start()
    thread.join()

    with pytest.raises(subprocess.TimeoutExpired):
        psutil_wait(started[0].pid, timeout_s=1)


def psutil_wait(pid: int, timeout_s: float) -> None:
    try:
        psutil.Process(pid).wait(timeout_s)
    except psutil.TimeoutExpired as error:
        raise subprocess.TimeoutExpired(str(pid), timeout_s) from error


A_PARENT = """
import sys
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
kafka = EmbeddedKafka()
kafka.start()
print(kafka.pid, kafka.data_directory, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("is_frozen", [False, True])
def test_no_broker_outlives_a_killed_parent(is_frozen: bool) -> None:
    """Neither process nor temporary folder is left by kill -9, whatever state the broker is in."""
    parent = subprocess.Popen(
        [sys.executable, "-c", A_PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout
        pid, folder = parent.stdout.readline().split()
        if is_frozen:
            os.kill(int(pid), signal.SIGSTOP)
        assert psutil.pid_exists(int(pid))

        parent.kill()
        parent.wait()

        wait_until(lambda: not psutil.pid_exists(int(pid)), timeout_s=5)
        wait_until(lambda: not Path(folder).exists(), timeout_s=5)
