"""The stream under one real daemon: what an operator sees and presses in its pages, also after a kill."""

import asyncio
import os
import re
import signal
from pathlib import Path

import dagster as dg
from playwright.async_api import expect

from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.defs.browser import browsing
from hedgelock_ingest_tests.defs.dagster_stage import proved
from hedgelock_ingest_tests.defs.ui_pages import DagsterUi, Pages
from hedgelock_ingest_tests.processes.stage import Stage, eventually, staged

TOPIC = "/assets/kafka/market-data"
UI_TIMEOUT_S = 90.0
"""How long each step may take on a busy machine."""


async def test_operator_sees_what_flows_and_what_was_lost_and_restarts_it(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """The sensor starts and restarts the stream after Terminate and kill -9; pages show it; nothing is lost."""
    async with browsing(timeout_s=UI_TIMEOUT_S) as page, staged(kafka, topic_prefix, tmp_path, rate=300) as stage:
        dagster = DagsterUi(tmp_path, stage.stream.settings)
        stage.stream = dagster
        dagster.start()
        try:
            first = (await dagster.worker(timeout_s=UI_TIMEOUT_S)).run_id
            with stage.outage():
                # The first line belongs to the reference client.
                assert await stage.exchange.fault("drop_lines", category="linear", nth=1) == 1
                await dagster.until_stats("reconnected", lambda found: found["reconnects"] >= 1)
                await dagster.ready()
            pages = Pages(page, dagster.url)
            await _lineage_leads_from_a_topic_to_its_feeds(pages)
            await _topic_opens_its_reference_page(pages)
            await _check_of_a_topic_says_that_data_flows(pages)
            await _topic_leads_to_the_run_that_writes_it(pages, first)
            with stage.outage():
                second = await _terminate_ends_the_run_and_the_next_one_starts(pages, dagster, first)
            await _figures_are_plotted_over_both_runs(pages)
            await _killed_run_has_failed_and_the_next_one_starts(stage, dagster, second)
            await _audit_shows_the_gap_and_nothing_else(pages)
            await proved(stage, dagster, live=dagster.runs()[0].dagster_run.run_id)
        finally:
            await asyncio.to_thread(dagster.end)


async def _lineage_leads_from_a_topic_to_its_feeds(pages: Pages) -> None:
    await pages.open("/asset-groups")
    await expect(pages.node("kafka_market")).to_be_visible()
    assert await pages.left_edge("bybit_public") < await pages.left_edge("kafka_market")
    await pages.open(f"{TOPIC}?view=lineage")
    await expect(pages.node("market-data")).to_be_visible()
    await expect(pages.arrows()).to_have_count(
        4
    )  # from two tickers and the spot book to the topic, and from there to the audit
    assert await pages.left_edge("tickers") < await pages.left_edge("market-data") < await pages.left_edge("audit")
    await pages.node("orderbook_50").click()
    await expect(pages.page).to_have_url(re.compile("/assets/bybit/spot/orderbook_50"))


async def _topic_opens_its_reference_page(pages: Pages) -> None:
    await pages.open(TOPIC)
    about_headers = pages.page.get_by_text("version 4 UUID of the frame").first
    await pages.click_until_shown(pages.page.get_by_text("Show Markdown").first, about_headers)


async def _check_of_a_topic_says_that_data_flows(pages: Pages) -> None:
    await pages.open(f"{TOPIC}?view=checks")
    await expect(pages.check("data_flows")).to_contain_text("Succeeded")
    await pages.shows("Data flows.")


async def _topic_leads_to_the_run_that_writes_it(pages: Pages, run_id: str) -> None:
    await pages.open(TOPIC)
    await expect(pages.link("stream")).to_have_attribute("href", re.compile("/jobs/stream"))
    await pages.open(f"{TOPIC}?view=events")
    await pages.link(run_id[:8]).first.click()
    await expect(pages.page).to_have_url(re.compile(f"/runs/{run_id}"))
    await pages.shows("Started")
    await pages.shows("Data flows")


async def _terminate_ends_the_run_and_the_next_one_starts(pages: Pages, dagster: DagsterUi, run_id: str) -> str:
    await pages.press("Terminate")
    await pages.shows("1 run will be terminated")
    await pages.press("Terminate 1 run")
    await pages.shows("Canceled")
    await pages.shows("the stream ended; Kafka holds all")
    await pages.open("/runs?q[0]=job:stream")
    await pages.shows("Canceled")
    await pages.shows("Started")
    successor = await dagster.worker(after=run_id, timeout_s=UI_TIMEOUT_S)
    assert dagster.status_of(run_id) is dg.DagsterRunStatus.CANCELED
    return successor.run_id


async def _killed_run_has_failed_and_the_next_one_starts(stage: Stage, dagster: DagsterUi, run_id: str) -> None:
    heartbeat = await dagster.worker()
    assert heartbeat.run_id == run_id
    with stage.outage():
        os.kill(heartbeat.pid, signal.SIGKILL)
        await dagster.worker(after=run_id, timeout_s=UI_TIMEOUT_S)
    assert dagster.status_of(run_id) is dg.DagsterRunStatus.FAILURE


async def _figures_are_plotted_over_both_runs(pages: Pages) -> None:
    async def is_a_line() -> bool:
        await pages.open(TOPIC)
        await pages.press("Plots")
        return min([await pages.width_of_plot(name) for name in ("records per s", "latency p99 ms")]) > 0.5

    await eventually("a line through two materialisations", is_a_line, timeout_s=UI_TIMEOUT_S)


async def _audit_shows_the_gap_and_nothing_else(pages: Pages) -> None:
    await pages.open("/assets/audit?view=checks")
    await pages.press("Materialize")
    await expect(pages.check("no_holes")).to_contain_text("Failed")
    await expect(pages.check("market_data_is_complete")).to_contain_text("Succeeded")
    await pages.check("no_holes").click()
    await pages.shows("not filled")
