"""The check `data_flows` fails within seconds of trouble, and passes again when it is over."""

import asyncio
import logging
import signal
from collections.abc import Callable
from itertools import groupby, pairwise
from pathlib import Path

import dagster as dg
import pytest

from hedgelock_ingest.defs.known_settings import KnownSettings
from hedgelock_ingest.defs.stream.checks import Watch, checks, evaluations
from hedgelock_ingest.models.topics import STEADY, Topic
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest.sandbox.kafka.tcp_ports import free_port
from hedgelock_ingest.settings import Settings
from hedgelock_ingest_tests.defs.one_run import OneRun
from hedgelock_ingest_tests.defs.stream.test_report import AWAY, statistics
from hedgelock_ingest_tests.processes.stage import eventually, staged

REPORTED_WITHIN_S = 25.0
"""Less than half of the minute between two reports of figures; measured are 5 to 8 s."""


@pytest.mark.proof
async def test_frozen_broker_fails_the_check_and_a_thawed_one_passes_it(
    own_kafka: Callable[..., EmbeddedKafka], topic_prefix: str, tmp_path: Path
) -> None:
    """The check fails on both topics, and the run logs an error, long before the next report of figures."""
    broker = await asyncio.to_thread(own_kafka)
    async with staged(broker, topic_prefix, tmp_path, rate=300) as stage:
        stage.stream = stream = OneRun(tmp_path, stage.stream.settings, report_interval_s=3600)
        stream.start()
        try:
            await stream.ready(timeout_s=60)
            await eventually("data flows", lambda: _is_reported(stream, passed=True), timeout_s=REPORTED_WITHIN_S)
            broker.freeze()
            try:
                await eventually("red", lambda: _is_reported(stream, passed=False), timeout_s=REPORTED_WITHIN_S)
            finally:
                broker.thaw()
            await eventually("green again", lambda: _is_reported(stream, passed=True), timeout_s=REPORTED_WITHIN_S)
            await asyncio.to_thread(stream.end_daemon, signal.SIGTERM)
            await eventually("red at its end", lambda: _has_ended(stream), timeout_s=60)
            logged = [
                (level, text.split()[0]) for level, text in stream.lines() if text.startswith(("TROUBLE", "Data"))
            ]
        finally:
            await asyncio.to_thread(stream.end)
    well = (logging.INFO, "Data")  # the end shows in the check and in the run's status
    # The first report may fall into the outage, and repeats the line.
    assert [line for line, _ in groupby(logged)] == [well, (logging.ERROR, "TROUBLE:"), well]


@pytest.mark.proof
async def test_broker_that_was_never_there_fails_the_check(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """Nothing else reports topics that never got a record: their assets stay grey."""
    async with staged(kafka, topic_prefix, tmp_path, rate=300) as stage:
        nowhere = {"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}"}
        stream = OneRun(tmp_path, stage.stream.settings | nowhere, report_interval_s=3600)
        stream.start()
        try:
            await eventually("red", lambda: _is_reported(stream, passed=False), timeout_s=90)
        finally:
            await asyncio.to_thread(stream.end)


async def _is_reported(stream: OneRun, *, passed: bool) -> bool:
    results = [await asyncio.to_thread(stream.last_result, topic) for topic in STEADY]
    return all(
        each is not None
        and each.passed == passed
        and each.severity is dg.AssetCheckSeverity.ERROR
        and ("Kafka is away" in (each.description or "")) != passed
        for each in results
    )


async def _has_ended(stream: OneRun) -> bool:
    results = [await asyncio.to_thread(stream.last_result, topic) for topic in STEADY]
    return all(
        each is not None and not each.passed and "no run carries this shard" in (each.description or "")
        for each in results
    )


def test_trouble_is_reported_once_it_lasts_and_its_end_at_once() -> None:
    """A line that reconnects within a second must not fail the check; nor must a start."""
    watch = Watch()
    assert [_reports(watch, at_s, is_well=False) for at_s in (0.0, 9.0, 10.0, 12.0)] == [False, False, True, False]
    assert [_reports(watch, at_s, is_well=True) for at_s in (14.0, 16.0)] == [True, False]
    assert [_reports(watch, at_s, is_well=at_s != 18.0) for at_s in (18.0, 20.0, 22.0)] == [False] * 3
    assert [_reports(watch, at_s, is_well=False) for at_s in (30.0, 32.0)] == [False, True]


@pytest.mark.parametrize("is_well", [True, False])
def test_unchanged_result_is_reported_every_ten_minutes(is_well: bool) -> None:
    """An old result would not show that the run still reports; one per minute would fill the storage."""
    watch = Watch()
    last_event_s = [at_s for at_s in range(0, 3600, 2) if _reports(watch, at_s, is_well=is_well)]
    assert len(last_event_s) == 6
    assert {later - earlier for earlier, later in pairwise(last_event_s)} == {600}


def _reports(watch: Watch, now_s: float, *, is_well: bool) -> bool:
    if is_due := watch.is_due(now_s, is_well=is_well):
        watch.record(now_s, is_well=is_well)
    return is_due


def test_check_cannot_be_executed_in_dagsters_pages() -> None:
    """The result of such a run would hide all results of the stream until its next run."""
    defined = checks(KnownSettings(Settings()))
    assert len(defined.check_keys) > 1, "Dagster offers to execute a single check"
    assert not defined.can_subset


@pytest.mark.parametrize("shards", [("main",), ("spot", "main"), ("a-b", "main")])
def test_results_are_of_checks_that_are_defined(shards: tuple[str, ...]) -> None:
    """The result of an undefined check is stored, but shown nowhere."""
    defined = checks(KnownSettings(Settings(stream_shards=shards)))
    reported = {each.asset_check_key for shard in shards for each in evaluations(statistics(shard=shard), shards)}
    assert reported == defined.check_keys
    assert len(reported) == len(shards) * len(STEADY)


def test_result_of_a_shard_states_what_keeps_data_from_flowing() -> None:
    """It is the text of the run's log line, so that an operator need not open the run."""
    found = {each.asset_key.path[-1]: each for each in evaluations(statistics(kafka=AWAY), ("main",))}
    assert set(found) == {Topic.MARKET_DATA.value, Topic.MARKET_ORDER_BOOKS.value}
    assert not any(each.passed for each in found.values())
    assert (found["market-data"].description or "").startswith("TROUBLE: Kafka is away")
