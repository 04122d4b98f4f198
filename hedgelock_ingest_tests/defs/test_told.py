"""Every slot is told once: as polled, or as missed; whatever dies, fails or is forgotten in between."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from sqlalchemy.exc import OperationalError

from hedgelock_ingest.defs import assembly
from hedgelock_ingest.defs.maintenance.old_runs import forget
from hedgelock_ingest.defs.polls import assets
from hedgelock_ingest.defs.polls.report import figures as figures_of
from hedgelock_ingest.defs.polls.slots import LEAD_MS, WINDOW_MS, Lost, Window, slots, untold, window_of
from hedgelock_ingest.defs.polls.told import END, spans_told
from hedgelock_ingest.defs.polls.window import Polled
from hedgelock_ingest.defs.topics.assets import polled_key
from hedgelock_ingest.protocol.rest_messages import Part
from hedgelock_ingest.sandbox.demo import dagster
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.defs.polling_runs import (
    an_ingest,
    config_of,
    figures,
    materialized,
    tick_that_ends_in,
    use_topics_of_ones_own,
    verdict,
)
from hedgelock_ingest_tests.kafka.reading import read_topic
from hedgelock_ingest_tests.sandbox.exchange_fixtures import exchange_process

A_WINDOW = WINDOW_MS // 5_000
DAY_MS = 86_400_000


@pytest.fixture(autouse=True)
def _own_topics(monkeypatch: pytest.MonkeyPatch, topic_prefix: str, tmp_path: Path) -> None:
    use_topics_of_ones_own(monkeypatch, topic_prefix, tmp_path)


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance that stores as the one of `dagster.yaml` does."""
    dagster.prepare_home(tmp_path / "home")
    with dg.DagsterInstance.from_config(str(tmp_path / "home")) as instance:
        yield instance


async def test_slots_of_a_lost_tick_are_named(kafka: EmbeddedKafka) -> None:
    """When the daemon was away for a minute, the next run tells how many polls nobody made."""
    past_ms = _an_hour_ago()
    async with exchange_process() as exchange:
        with dg.DagsterInstance.ephemeral() as instance:
            ingest = an_ingest(exchange, kafka)
            await materialized(ingest, instance, tick_ms=past_ms, only="loans")
            await materialized(ingest, instance, only="loans")  # by hand: it hides nothing
            result = await materialized(ingest, instance, tick_ms=past_ms + 2 * WINDOW_MS, only="loans")
            again = await materialized(ingest, instance, tick_ms=past_ms + 3 * WINDOW_MS, only="loans")
    assert figures(result, "loans")["missed slots"] == 2 * A_WINDOW
    assert figures(again, "loans")["missed slots"] == A_WINDOW, "what was told was told again"


async def test_outage_is_told_though_all_runs_before_it_are_forgotten(
    kafka: EmbeddedKafka, stored: dg.DagsterInstance
) -> None:
    """A daemon that is away for days comes back to a storage in which nothing stands of the polls before."""
    last_ms = _an_hour_ago() - 2 * DAY_MS
    now_ms = last_ms + 2 * DAY_MS
    async with exchange_process() as exchange:
        ingest = an_ingest(exchange, kafka)
        first = await materialized(ingest, stored, tick_ms=last_ms, only="loans")
        forget(stored, first.run_id)
        assert not stored.fetch_observations(polled_key("loans"), limit=1).records
        result = await materialized(ingest, stored, tick_ms=now_ms, only="loans")
        again = await materialized(ingest, stored, tick_ms=now_ms + WINDOW_MS, only="loans")
    lost = 2 * DAY_MS // 5_000 - A_WINDOW
    assert figures(result, "loans")["missed slots"] == lost + A_WINDOW
    assert f"{lost} from {_clock(window_of(last_ms).end_ms)} to {_clock(window_of(now_ms).begin_ms)} UTC" in _told(
        result
    )
    assert not verdict(result).passed
    assert figures(again, "loans")["missed slots"] == A_WINDOW, "what was told was told again"


@pytest.mark.proof
async def test_window_that_is_tried_again_holds_nothing_for_missed_that_was_polled(
    kafka: EmbeddedKafka, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster's storage fails for a moment after the polls: they stand in Kafka, and none is made again."""
    monkeypatch.setenv("BYBIT_LOAN_POLL_INTERVAL", "1")
    async with exchange_process() as exchange:
        with dg.DagsterInstance.ephemeral() as instance:
            ingest, tick_ms = an_ingest(exchange, kafka), tick_that_ends_in(8_000)
            with monkeypatch.context() as patch:
                _fail(patch, times=1)
                retried = await materialized(ingest, instance, tick_ms=tick_ms, only="loans")
            executed_again = await materialized(ingest, instance, tick_ms=tick_ms, only="loans")
    records = await read_topic(kafka.bootstrap_servers, topic_prefix + "account_raw", timeout_s=30)
    assert len(records) > 1
    for result in (retried, executed_again):
        told = figures(result, "loans")
        assert told["polls"] == told["polls of an earlier attempt"] == len(records)
        assert told["polls"] + told["missed slots"] == WINDOW_MS // 1_000


@pytest.mark.proof
async def test_run_that_polled_and_could_not_tell_leaves_no_slot_for_missed(
    kafka: EmbeddedKafka, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run looks into Kafka before it tells what nobody told of."""
    monkeypatch.setenv("BYBIT_LOAN_POLL_INTERVAL", "1")
    async with exchange_process() as exchange:
        with dg.DagsterInstance.ephemeral() as instance:
            ingest, first_ms = an_ingest(exchange, kafka), tick_that_ends_in(-2 * WINDOW_MS)
            await materialized(ingest, instance, tick_ms=first_ms, only="loans")
            tick_ms = tick_that_ends_in(8_000)
            with monkeypatch.context() as patch:
                _fail(patch, times=9)
                failed = await materialized(ingest, instance, tick_ms=tick_ms, only="loans", may_fail=True)
            polled = len(await read_topic(kafka.bootstrap_servers, topic_prefix + "account_raw", timeout_s=30))
            monkeypatch.setattr(assets, "poll_window", _of_nothing)
            result = await materialized(ingest, instance, tick_ms=tick_ms + WINDOW_MS, only="loans")
    assert not failed.success
    assert polled > 1
    untold_slots = slots(Window(window_of(first_ms).end_ms, window_of(tick_ms).end_ms), 1_000)
    assert figures(result, "loans")["missed slots"] == len(untold_slots) - polled


async def test_holes_before_a_run_under_way_are_its_own_to_tell(
    kafka: EmbeddedKafka, stored: dg.DagsterInstance
) -> None:
    """Several runs at once each see the same hole; when the first one fails, the next one tells in its place."""
    first_ms = _an_hour_ago()
    second_ms, third_ms, fourth_ms = (first_ms + number * WINDOW_MS for number in (4, 5, 6))
    async with exchange_process() as exchange:
        ingest = an_ingest(exchange, kafka)
        await materialized(ingest, stored, tick_ms=first_ms, only="loans")
        definitions = dg.Definitions(assets=[assets.poll_account], jobs=[assets.poll_job], resources={"ingest": ingest})
        job = definitions.resolve_job_def(assets.JOB_NAME)
        under_way = stored.create_run_for_job(job, run_config=config_of(second_ms), status=dg.DagsterRunStatus.STARTED)
        meanwhile = await materialized(ingest, stored, tick_ms=third_ms, only="loans")
        stored.report_run_failed(under_way)
        afterwards = await materialized(ingest, stored, tick_ms=fourth_ms, only="loans")
    assert figures(meanwhile, "loans")["missed slots"] == A_WINDOW
    assert figures(afterwards, "loans")["missed slots"] == (3 + 1 + 1) * A_WINDOW


def test_window_that_is_told_last_need_not_be_the_latest() -> None:
    """A window that was executed again, and a poll by hand, are newer events; what was told is told all the same."""
    first, second, third = (Window(number * WINDOW_MS, (number + 1) * WINDOW_MS) for number in range(10, 13))
    with dg.DagsterInstance.ephemeral() as instance:
        for told in ({END: first.end_ms}, {END: second.end_ms}, {END: first.end_ms}, {"polls": 1}):
            instance.report_runless_asset_event(dg.AssetMaterialization(polled_key("loans"), metadata=told))
        events = instance.fetch_materializations(polled_key("loans"), limit=10).records
    assert untold(None, spans_told(events), third) == []
    assert untold(None, spans_told(events[:2]), third) == [second]


def test_holes_that_an_event_told_are_told() -> None:
    """Where it could not be noted, the event itself keeps the next run from telling them again."""
    first, second, third = (Window(number * WINDOW_MS, (number + 1) * WINDOW_MS) for number in range(10, 13))
    told = figures_of(Part.LOANS, Polled(5_000), second, lost=[Lost(first, 5_000)])
    with dg.DagsterInstance.ephemeral() as instance:
        instance.report_runless_asset_event(dg.AssetObservation(polled_key("loans"), metadata=told))
        events = instance.fetch_observations(polled_key("loans"), limit=10).records
    assert sorted(spans_told(events)) == [first, second]
    assert untold(first.begin_ms, spans_told(events), third) == []


def test_tick_whose_window_is_over_starts_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that was away makes up for ticks all at once, while the slots of the present window are due."""
    monkeypatch.setenv("BYBIT_API_KEY", "key")
    monkeypatch.setenv("BYBIT_API_SECRET", "secret")
    repository = assembly.assemble().get_repository_def()
    schedule = repository.get_schedule_def("poll_every_minute")

    def ticked(at_s: float) -> Any:
        at = datetime.fromtimestamp(at_s, UTC)
        with dg.build_schedule_context(scheduled_execution_time=at, repository_def=repository) as context:
            return schedule.evaluate_tick(context)

    over_s = (LEAD_MS + WINDOW_MS) / 1000
    assert len(ticked(time.time()).run_requests) == 1
    assert len(ticked(time.time() - over_s + 10).run_requests) == 1, "it has slots left"
    missed = ticked(time.time() - over_s - 1)
    assert not missed.run_requests
    assert "is over: the next run tells its slots as missed" in missed.skip_message


async def _of_nothing(settings: Any, parts: Any, window: Any) -> dict[Any, Polled]:
    return {part: Polled(interval_ms) for part, interval_ms in parts.items()}


def _fail(patch: pytest.MonkeyPatch, *, times: int) -> None:
    """Let Dagster's storage not answer when it is asked what was told before."""
    left, asked = [times], dg.DagsterInstance.fetch_observations

    def fetch(instance: dg.DagsterInstance, *arguments: Any, **options: Any) -> Any:
        is_ours = options.get("limit", 1) > 1  # Dagster itself asks for one, and would fail the run
        left[0] -= is_ours
        if is_ours and left[0] >= 0:
            raise OperationalError("SELECT", {}, Exception("database is locked"))
        return asked(instance, *arguments, **options)

    patch.setattr(dg.DagsterInstance, "fetch_observations", fetch)


def _told(result: dg.ExecuteInProcessResult) -> str:
    return verdict(result).description or ""


def _an_hour_ago() -> int:
    return (time.time_ns() // 1_000_000 // WINDOW_MS - 60) * WINDOW_MS


def _clock(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"
