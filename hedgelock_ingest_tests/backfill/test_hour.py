"""Backfill: the missing records of an hour are published once, however often it is run."""

import asyncio
import json
import signal
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from msgspec import Raw

from hedgelock_ingest.audit.gaps import verify
from hedgelock_ingest.backfill.hour import Backfill, FeedBackfill, backfill_hour
from hedgelock_ingest.backfill.rest_requests import FeedAnswer, fetch_hour
from hedgelock_ingest.errors import KeyRefused, OutOfReach, RestError, RestUnavailable
from hedgelock_ingest.models.account import Execution
from hedgelock_ingest.models.market import Trade
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.rest_messages import Part, Purpose, RestAnswer
from hedgelock_ingest.protocol.rest_rows import UndecodableRow
from hedgelock_ingest.sandbox.exchange.keys import KEYS
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest.settings import Settings
from hedgelock_ingest_tests.account.account_stage import RunningShard, account_settings, running_shard
from hedgelock_ingest_tests.backfill.past_hour import an_hour_ago, clock_at, fill, killed_amid_publishing, trade
from hedgelock_ingest_tests.kafka.read_topic import read_topic
from hedgelock_ingest_tests.sandbox.exchange_fixtures import eventually, running_exchange

LINEAR, SPOT, EXECUTIONS = "linear:publicTrade.BTCUSDT", "spot:publicTrade.BTCUSDT", "private:execution"
MINUTE = timedelta(minutes=1)


async def values(settings: Settings, topic: Topic) -> list[Mapping[str, Any]]:
    found = await read_topic(settings.kafka_bootstrap_servers, settings.topic(topic.value))
    return [json.loads(record.value) for record in found if record.value is not None]


async def trade_ids(settings: Settings) -> list[str]:
    return sorted(value["trade_id"] for value in await values(settings, Topic.MARKET_TRADES))


async def exec_ids(settings: Settings) -> list[str]:
    return sorted(value["exec_id"] for value in await values(settings, Topic.EXECUTIONS))


def feed(result: Backfill, name: str) -> FeedBackfill:
    (found,) = [each for each in result.feeds if each.answer.feed == name]
    return found


async def wait_for_records(shard: RunningShard, *, trades: int = 0, fills: int = 0) -> None:
    """Wait until a shard has published that many records to Kafka."""
    counts = shard.service.stream.stats.records
    await eventually(lambda: counts[Topic.MARKET_TRADES] >= trades and counts[Topic.EXECUTIONS] >= fills)
    await shard.caught_up()


async def live(shard: RunningShard, *, has_account: bool = True) -> None:
    """Wait until all feeds of a shard are live."""
    await eventually(lambda: not shard.service.receiver.without_line)
    await eventually(lambda: shard.service.stream.stats.records[Topic.ACCOUNT_UPDATES] >= has_account)


async def test_only_missing_records_are_published(kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path) -> None:
    """Records of the stream stay, the missing ones are published once, and a second run publishes nothing."""
    begin = an_hour_ago()
    async with running_exchange(rate=0) as exchange:
        settings = account_settings(exchange, kafka, topic_prefix, tmp_path / "lost")
        with clock_at(exchange, begin - MINUTE):
            trade(exchange, 3)
            fill(exchange, 1)
        with clock_at(exchange, begin + 5 * MINUTE):
            async with running_shard(settings) as shard:
                await live(shard)
                trades, fills = trade(exchange, 20), fill(exchange, 3)
                await wait_for_records(shard, trades=len(trades), fills=len(fills))
            missed, missed_fills = trade(exchange, 30), fill(exchange, 2)
        with clock_at(exchange, begin + 61 * MINUTE):
            trade(exchange, 3)
            fill(exchange, 1)
        settings = settings.model_copy(update={"journal_directory": tmp_path / "fresh"})
        first = await backfill_hour(settings, begin)
        records = await values(settings, Topic.MARKET_TRADES), await values(settings, Topic.EXECUTIONS)
        again = await backfill_hour(settings, begin)

    assert await trade_ids(settings) == sorted([*trades, *missed])
    late_trades = [Trade.model_validate(each) for each in records[0] if each["healed"]]
    assert {each.trade_id for each in late_trades} == set(missed)
    assert {each.source for each in late_trades} == {"rest-backfill"}
    assert all(begin <= each.timestamp < begin + 60 * MINUTE for each in late_trades)
    late_fills = [Execution.model_validate(each) for each in records[1] if each["exec_id"] not in fills]
    assert {each.exec_id for each in late_fills} >= set(missed_fills)
    assert [feed(first, LINEAR).known, feed(first, EXECUTIONS).known] == [len(trades), len(fills)]
    assert [first.published(topic) for topic in (Topic.MARKET_TRADES, Topic.EXECUTIONS)] == [len(missed), 2]
    assert first.shortfalls == []
    assert [each.published for each in again.feeds] == [0, 0]
    assert len(await exec_ids(settings)) == len(set(await exec_ids(settings))) == len(records[1])
    assert len(await trade_ids(settings)) == len(records[0])
    proof = await verify(settings, since=datetime.now(UTC) - 5 * MINUTE, until=datetime.now(UTC) + MINUTE)
    assert proof.is_complete, "the audit must not take what comes late for what is out of order"


async def test_pending_data_of_the_stream_is_left_to_it(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """A stopped stream fills its gap when it starts: the backfill's records would then be published twice."""
    async with running_exchange(rate=0) as exchange:
        settings = account_settings(exchange, kafka, topic_prefix, tmp_path)
        begin = datetime.now(UTC) - 30 * MINUTE
        async with running_shard(settings) as shard:
            await live(shard)
            trades, fills = trade(exchange, 10), fill(exchange, 2)
            await wait_for_records(shard, trades=len(trades), fills=len(fills))
        trades, fills = trades + trade(exchange, 10), fills + fill(exchange, 3)
        with clock_at(exchange, datetime.now(UTC) + 60 * MINUTE):
            result = await backfill_hour(settings, begin)
        published = await trade_ids(settings), await exec_ids(settings)
        async with running_shard(settings) as shard:
            await live(shard, has_account=False)
            await eventually(lambda: shard.service.stream.stats.records[Topic.INGEST_GAPS] >= 5)
            await shard.caught_up()

    assert [each.published for each in result.feeds] == [0, 0]
    assert feed(result, LINEAR).left == len(trades) - len(published[0]) > 0
    assert feed(result, EXECUTIONS).left == 3
    assert "left to the stream" in " ".join(result.shortfalls)
    assert await trade_ids(settings) == sorted(trades)
    found = await exec_ids(settings)
    assert set(fills) <= set(found)
    assert len(found) == len(set(found))


async def test_data_that_gap_filling_gave_up_is_published_beside_the_running_stream(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """The stream keeps its journal, and no record of either is published twice."""
    begin = an_hour_ago()
    async with running_exchange(rate=0) as exchange:
        settings = account_settings(exchange, kafka, topic_prefix, tmp_path, key=None)
        async with running_shard(settings) as shard:
            await live(shard, has_account=False)
            with clock_at(exchange, begin + MINUTE):
                trades = trade(exchange, 10)
                await wait_for_records(shard, trades=len(trades))
                exchange.fail_rest("ret_code", path="/v5/market/recent-trade", ret_code=10005, count=None)
                exchange.refuse_connections()
                exchange.drop_lines("linear")
                await eventually(lambda: LINEAR in shard.service.receiver.without_line)
                missed = trade(exchange, 10)
                exchange.accept_connections()
                await eventually(lambda: shard.service.stream.stats.records[Topic.INGEST_GAPS] >= 1)
                exchange.restore_rest()
            journal = shard.service.journal
            await eventually(lambda: journal.state_position == journal.last_position, timeout_s=20)
            result = await backfill_hour(settings, begin)
            trades += trade(exchange, 5)
            await wait_for_records(shard, trades=len(trades))
        async with running_shard(settings) as shard:
            await live(shard, has_account=False)
            await eventually(lambda: shard.service.stream.stats.records[Topic.INGEST_GAPS] >= 1)

    assert feed(result, LINEAR).published == len(missed)
    assert await trade_ids(settings) == sorted([*trades, *missed])


async def test_kill_during_publishing_doubles_nothing(kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path) -> None:
    """The next run reads back the records of the killed one, including those still in flight."""
    begin = an_hour_ago()
    async with running_exchange(rate=0) as exchange:
        settings = account_settings(exchange, kafka, topic_prefix, tmp_path)
        with clock_at(exchange, begin + MINUTE):
            trades, fills = trade(exchange, 60), fill(exchange, 5)
        assert await killed_amid_publishing(settings, begin) == -signal.SIGKILL
        half = len(await trade_ids(settings)) + len(await exec_ids(settings))
        await backfill_hour(settings, begin)
    assert 0 < half <= len(trades) + len(fills)
    assert await trade_ids(settings) == sorted(trades)
    assert await exec_ids(settings) == sorted(fills)


async def test_backfill_that_was_killed_between_two_topics_is_completed(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """The next run finds the executions in their own topic, and sends the missing copies alone."""
    begin, copies = an_hour_ago(), f"{topic_prefix}copies"
    async with running_exchange(rate=0) as exchange:
        settings = account_settings(exchange, kafka, topic_prefix, tmp_path)
        with clock_at(exchange, begin + MINUTE):
            fills = fill(exchange, 5)
        first = await backfill_hour(settings, begin)
        settings = settings.model_copy(update={"kafka_routes": (f"Execution={copies}",)})
        results = [await backfill_hour(settings, begin) for _ in range(2)]
    copied = [json.loads(record.value or b"") for record in await read_topic(kafka.bootstrap_servers, copies)]
    assert feed(first, EXECUTIONS).published == len(fills)
    assert [feed(result, EXECUTIONS).published for result in results] == [0, 0]
    assert sorted(value["exec_id"] for value in copied) == sorted(fills)
    assert await exec_ids(settings) == sorted(fills)


async def test_concurrent_backfills_publish_everything_once(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """An operator may start a backfill twice."""
    begin = an_hour_ago()
    async with running_exchange(rate=0) as exchange:
        settings = account_settings(exchange, kafka, topic_prefix, tmp_path)
        with clock_at(exchange, begin + MINUTE):
            trades, fills = trade(exchange, 20), fill(exchange, 5)
        results = await asyncio.gather(*(backfill_hour(settings, begin) for _ in range(3)))
    assert sorted(sum(feed.published for feed in result.feeds) for result in results) == [0, 0, len(trades) + 5]
    assert await trade_ids(settings) == sorted(trades)
    assert await exec_ids(settings) == sorted(fills)


async def test_execution_that_cannot_be_decoded_leaves_the_others(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """The others are published, and the hour is not called complete."""
    begin = an_hour_ago()
    async with running_exchange(rate=0) as exchange:
        settings = account_settings(exchange, kafka, topic_prefix, tmp_path)
        with clock_at(exchange, begin + MINUTE):
            trade(exchange, 1)
            fills = fill(exchange, 3)
        executions = exchange.account.executions
        executions[-2] = replace(executions[-2], exec_id="")
        result = await backfill_hour(settings, begin)
    assert await exec_ids(settings) == sorted([fills[0], fills[2]])
    assert [feed(result, EXECUTIONS).published, feed(result, EXECUTIONS).answer.row_count] == [2, 3]
    assert f"{EXECUTIONS}: 1 row cannot be decoded" in " ".join(result.shortfalls)


def a_result(answer: RestAnswer, *undecodable: UndecodableRow, reaches_ms: int | None = 0) -> Backfill:
    """Build the result of an hour with one feed, of which REST returned no events."""
    fetched = FeedAnswer(EXECUTIONS, answer, len(undecodable), reaches_ms, [], list(undecodable))
    return Backfill(an_hour_ago(), [FeedBackfill(fetched, known=0, published=0, left=0)], [])


def test_category_that_bybit_refuses_is_a_shortfall() -> None:
    """Its executions of the hour are unknown."""
    results = {name: Raw(b'{"list":[]}') for name in ("linear", "inverse", "spot")}
    answer = RestAnswer(Part.EXECUTIONS, Purpose.GAP_FILL, 1, results, refused={"option": "no permission"})
    assert a_result(answer).shortfalls == [f"{EXECUTIONS}: Bybit returned nothing about option: no permission"]


async def test_symbol_that_bybit_does_not_know_is_a_shortfall(tmp_path: Path) -> None:
    """A symbol may be delisted; the trades of the others are requested all the same."""
    begin = an_hour_ago()
    async with running_exchange(rate=0) as exchange:
        with clock_at(exchange, begin + MINUTE):
            trades = trade(exchange, 3)
        symbols = ("NONEUSDT", "BTCUSDT")
        settings = account_settings(exchange, None, "", tmp_path, key=None, bybit_linear_symbols=symbols)
        answers, notes = await fetch_hour(settings, begin)

    assert [(each.feed, len(each.events)) for each in answers] == [(LINEAR, len(trades))]
    assert any(note.startswith("trades of linear NONEUSDT are not listed: ") for note in notes)


def test_rows_that_cannot_be_decoded_are_a_shortfall() -> None:
    """They are reported as such, and not as missing, although REST's reach is unknown without another row."""
    row = UndecodableRow("linear", b"{}", "Object missing required field `execId`")
    result = a_result(RestAnswer(Part.TRADES, Purpose.GAP_FILL, 1, {}), row, row, reaches_ms=None)
    assert result.shortfalls == [f"{EXECUTIONS}: 2 rows cannot be decoded: {row.reason}"]


async def test_hour_of_which_no_row_can_be_decoded_is_not_called_out_of_reach(tmp_path: Path) -> None:
    """Whether Bybit has rows of the hour is unknown, and the run may be repeated."""
    answered_ms = int(datetime.now(UTC).timestamp() * 1000)

    async def answer(request: web.Request) -> web.Response:
        result = {"category": "linear", "list": [{"execId": ""}]} if "recent-trade" in request.path else {}
        return web.json_response({"retCode": 0, "retMsg": "OK", "result": result, "time": answered_ms})

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    async with TestServer(app) as server:
        settings = Settings(
            bybit_rest_url=str(server.make_url("")).rstrip("/"),
            bybit_linear_symbols=("BTCUSDT",),
            bybit_spot_symbols=(),
            bybit_public_feeds=("publicTrade",),
            journal_directory=tmp_path,
        )
        with pytest.raises(RestUnavailable, match="1 row cannot be decoded"):
            await backfill_hour(settings, an_hour_ago())


async def test_without_a_key_only_trades_are_filled_and_a_note_states_it(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """Public data needs no account."""
    begin = an_hour_ago()
    async with running_exchange(rate=0) as exchange:
        settings = account_settings(exchange, kafka, topic_prefix, tmp_path, key=None)
        with clock_at(exchange, begin + MINUTE):
            trades = trade(exchange, 10)
            fill(exchange, 1)
        result = await backfill_hour(settings, begin)
    assert await trade_ids(settings) == sorted(trades)
    assert await exec_ids(settings) == []
    assert any("there is no key" in text for text in result.shortfalls)


async def test_reach_of_trades_is_reported(kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path) -> None:
    """Bybit returns the last 60 trades of a spot symbol: the hour before them cannot be checked."""
    begin = an_hour_ago()
    async with running_exchange(rate=0) as exchange:
        settings = account_settings(
            exchange, kafka, topic_prefix, tmp_path, key=None, bybit_spot_symbols=("BTCUSDT",), bybit_linear_symbols=()
        )
        with clock_at(exchange, begin + MINUTE):
            trade(exchange, 1, category="spot")
        with clock_at(exchange, begin + 20 * MINUTE):
            trades = trade(exchange, 100, category="spot")
        result = await backfill_hour(settings, begin)
    assert await trade_ids(settings) == sorted(trades[-60:])
    assert [feed(result, SPOT).answer.row_count, feed(result, SPOT).published] == [60, 60]
    assert any(f"only from {begin + 20 * MINUTE:%Y-%m-%d %H:%M:%S}" in text for text in result.shortfalls)


@pytest.mark.parametrize(
    ("key", "hours", "message"),
    [(None, -2, "returned nothing of that hour"), (None, 0, "the hour ends in"), ("read-only", 0, "the hour ends in")],
    ids=["before-the-trades", "not-over", "not-over-with-a-key"],
)
async def test_hour_without_data_from_rest_is_refused(
    key: str | None, hours: int, message: str, kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """A run that could fill nothing must not look like one that found nothing missing."""
    async with running_exchange(rate=0) as exchange:
        settings = account_settings(exchange, kafka, topic_prefix, tmp_path, key=KEYS[key] if key else None)
        trade(exchange, 5)
        with pytest.raises(OutOfReach, match=message):
            await backfill_hour(settings, datetime.now(UTC) + timedelta(hours=hours))


@pytest.mark.parametrize("key", ["trading", "expired"])
async def test_refused_key_is_not_used(key: str, kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path) -> None:
    """The key gate holds for backfills as for the stream."""
    async with running_exchange(rate=0) as exchange:
        settings = account_settings(exchange, kafka, topic_prefix, tmp_path, key=KEYS[key])
        with pytest.raises(KeyRefused):
            await backfill_hour(settings, an_hour_ago())


async def test_bybit_without_an_answer_fails_the_backfill(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """An hour with some feeds only is incomplete: the run fails, and may be repeated."""
    begin = an_hour_ago()
    async with running_exchange(rate=0) as exchange:
        settings = account_settings(exchange, kafka, topic_prefix, tmp_path)
        with clock_at(exchange, begin + MINUTE):
            trade(exchange, 5)
        exchange.fail_rest("html", path="/v5/execution", count=None, status=200)
        with pytest.raises(RestError) as raised:
            await backfill_hour(settings, begin)
    assert raised.value.transient
