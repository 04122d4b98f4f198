"""One simulated run: a world, a schedule of faults drawn from the seed, and the judgement of the records in Kafka."""

import asyncio
import gc
import logging
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from types import ModuleType
from typing import Any

import msgspec
import structlog
from aiokafka.errors import KafkaError as AiokafkaError

from hedgelock_ingest.kafka import addresses
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.pipeline import publishing
from hedgelock_ingest.protocol.rest_messages import Part
from hedgelock_ingest.translate.books import SKIPPED
from hedgelock_ingest.translate.record import RefusedRecord
from hedgelock_ingest_tests.processes.evidence import (
    Evidence,
    PublishedRecord,
    StreamConnection,
    gap_of,
    in_ms,
    published,
)
from hedgelock_ingest_tests.processes.proof import Proved, judge
from hedgelock_ingest_tests.simulation.account_proof import check_account
from hedgelock_ingest_tests.simulation.faults import (
    BOOKS,
    FAULTS,
    MARKET_FAULTS,
    QUIET_S,
    begin_badly,
    end_lasting_faults,
    half_open_line,
    quiet_market,
)
from hedgelock_ingest_tests.simulation.loop import Deadlock
from hedgelock_ingest_tests.simulation.world import World, until

UNREAD_MS = 6_000
"""How long before the end of a connection a lost frame may have been written: its delay and a slow disk."""
_HELD_BESIDES_MS = 1_500
"""How much longer than a line's allowed silence the other line's frames may be held for it, and be lost with it."""
_MAX_RECOVERY_S = 150.0
_SLOW_MARKET_MS = 20_000
"""How long even a steady channel may have no event."""
_JOINED_AFTER_MS = 3_000
_MATCHED_BEFORE_MS = 5
"""By how much a trade may be older than its frame, whose time REST does not have."""
_MAKE_SILENT = {
    "silence_line",
    "half_open_line",
    "trouble_beside",
    "spoil_subscriptions",
    "drop_all_lines",
    "set_clock",
}
_MAKE_SKIPS = {"delay_line", "trouble_beside", "restart_book", "snapshot_again"}
"""With these faults an update may arrive too late, or a book may jump, although every line has all updates."""
_REASONS_OF_THE_END = "no live line: stopped", "no live line: stale"


@dataclass(slots=True)
class SeedPlan:
    """
    The plan of a seed: how the process is run, and which faults happen when.

    `is_killed_early`: the first process is killed before any other fault. `group_frames` bounds the groups that are
    published together; with small ones the next group is translated while Kafka has not answered. With small
    `batch_bytes` a partition gets several batches of a group.
    """

    seed: int
    fields: dict[str, Any]
    is_orchestrated: bool
    strikes: list[tuple[float, str]]
    is_killed_early: bool
    group_frames: int
    batch_bytes: int
    stops_in_calm: bool

    def __str__(self) -> str:
        strikes = ", ".join(f"{name} at {at_s:.1f} s" for at_s, name in self.strikes)
        how = "Dagster" if self.is_orchestrated else "a supervisor"
        young = "the first process is killed early, " if self.is_killed_early else ""
        groups = f"groups of {self.group_frames} frames, batches of {self.batch_bytes} bytes"
        calm = ", a stop after all faults" if self.stops_in_calm else ""
        return f"seed {self.seed}: {self.fields}, {groups}, started by {how}; {young}{strikes}{calm}"


@dataclass(slots=True)
class SeedOutcome:
    """The result of a seed; `findings` is empty if every guarantee was kept."""

    plan: SeedPlan
    findings: list[str]
    proved: Proved
    trace: list[str] = field(default_factory=list)
    virtual_s: float = 0.0
    starts: int = 0


def draw(seed: int) -> SeedPlan:
    """Draw a schedule."""
    random = Random(seed)
    fields: dict[str, Any] = {
        "bybit_lines": random.choice([1, 2, 2]),
        "kafka_delivery_timeout": random.choice([3.0, 60.0]),
        "journal_max_bytes": random.choice([100_000, 10_000_000, 10_000_000]),
        "bybit_stale_after": random.choice([6.0, 12.0]),
        "bybit_connection_max_age": random.choice([8.0, 82_800.0, 82_800.0]),
        "bybit_collateral_poll_interval": 2.0,
        "order_book_state_interval": 2.0,
        "stop_timeout": random.choice([1.5, 10.0]),
    }
    names, weights = list(FAULTS), [fault.weight for fault in FAULTS.values()]
    at_s, strikes = 0.0, []
    for _ in range(random.randrange(2, 6)):
        at_s += random.choice([0.0, random.uniform(0.0, 1.0), random.uniform(0.0, 4.0)])
        strikes.append((at_s, random.choices(names, weights)[0]))
    is_orchestrated, is_killed_early = random.random() < 0.2, random.random() < 0.15
    # A journal smaller than a group waits for the next saved state, a delayed line for its close.
    may_stop = fields["journal_max_bytes"] > 1_000_000 and fields["stop_timeout"] > 5.0
    stops_in_calm = may_stop and random.random() < 0.6
    group_frames = random.choice([10, 1_000])
    strikes = sorted([*strikes, *_market_strikes(Random(f"markets {seed}"), at_s)], key=lambda strike: strike[0])
    batch_bytes = random.choice([1_000, 2_500, 256_000])
    return SeedPlan(seed, fields, is_orchestrated, strikes, is_killed_early, group_frames, batch_bytes, stops_in_calm)


def _market_strikes(random: Random, last_s: float) -> list[tuple[float, str]]:
    """Draw faults of markets, which a part of the schedules have."""
    count = random.choices([0, 1, 2, 3], [0.7, 0.15, 0.1, 0.05])[0]
    return [(random.uniform(0.0, last_s + 2.0), random.choice(MARKET_FAULTS)) for _ in range(count)]


def run(seed: int, *, log: bool = False) -> SeedOutcome:
    """Run the schedule of a seed and judge it; with `log` the trace includes the program's log lines."""
    with _deferred_garbage_collection():
        return _run(draw(seed), log=log)


def _run(plan: SeedPlan, *, log: bool) -> SeedOutcome:
    world = play(plan, log=log)
    proved = Proved()
    if not world.findings:
        proved = _judge(world, plan)
    for failure in world.loop.failures:
        if _is_ours(failure):
            world.find(f"the event loop reported {failure['message']}: {failure.get('exception')!r}")
    return SeedOutcome(plan, world.findings, proved, world.trace, world.loop.now_s - 1_000.0, world.starts)


def play(plan: SeedPlan, *, log: bool = False) -> World:
    """Return the world after a schedule; it has findings if the schedule could not be played to its end."""
    world = World(plan.seed, is_orchestrated=plan.is_orchestrated, fields=plan.fields)
    asyncio.events._set_running_loop(None)
    with _logging(world if log else None), _groups_of(plan.group_frames, plan.batch_bytes):
        try:
            world.loop.run_until_complete(_play(world, plan))
        except Deadlock as error:
            world.find(f"deadlock: {error}")
        finally:
            trace_length = len(world.trace)
            world.loop.close_and_discard()
            del world.trace[trace_length:]  # notes of discarded tasks, in any order
    return world


async def _play(world: World, plan: SeedPlan) -> None:
    tasks = [world.loop.create_task(world.orchestrator.run()), world.loop.create_task(world.beat())]
    try:
        world.disturb()
        if plan.is_killed_early:
            begin_badly(world)
        if not await until(world, lambda: _is_healthy(world), timeout_s=60.0):
            world.find("it did not start")
            return
        world.has_begun = True
        began_s = world.loop.now_s
        for at_s, name in plan.strikes:
            await world.clock.sleep(began_s + at_s - world.loop.now_s)
            world.note(name)
            FAULTS[name].strike(world)
        quiet_s = world.exchange.quiet_until_s - world.loop.now_s
        await world.clock.sleep(max(world.random.uniform(1.0, 6.0), quiet_s))
        await _end_and_check(world, stops_first=plan.stops_in_calm)
    finally:
        for task in tasks:
            task.cancel()


async def _end_and_check(world: World, *, stops_first: bool) -> None:
    end_lasting_faults(world)
    world.note("all faults are over")
    if not await until(world, lambda: _is_healthy(world), timeout_s=_MAX_RECOVERY_S):
        process = world.process
        world.find(f"it did not recover: {_state(world)}" if process else "no process was started again")
        return
    if stops_first and not await _stop_amid_frames(world):
        return
    if not await until(world, lambda: not world.is_disturbed, timeout_s=_MAX_RECOVERY_S):
        world.find("an outage has no end")
        return
    world.calm_since_ms = world.exchange.now_ms()
    world.moves_account = False
    # Until REST has answered after the last change of the account; one answer may have been under way before.
    polled = _polls(world, Part.COLLATERAL)
    await until(world, lambda: _polls(world, Part.COLLATERAL) > polled + 1, timeout_s=60.0)
    if world.is_wallet_old or world.exchange.rest.old_wallets:
        polled = _polls(world, Part.WALLET)
        await until(world, lambda: _polls(world, Part.WALLET) > polled, timeout_s=130.0)
    world.moves_market = False
    await world.clock.sleep(3.5)
    if not await until(world, lambda: _is_healthy(world), timeout_s=60.0):
        world.find(f"it was healthy and is not any more: {_state(world)}")
        return
    world.end_outage()
    world.calm_until_ms = world.exchange.now_ms()
    world.orchestrator.is_resting = True
    world.disturb()
    world.orchestrator.stop()
    if not await until(world, lambda: world.process is not None and world.process.is_over, timeout_s=60.0):
        world.find("it did not stop")
    world.end_outage()


async def _stop_amid_frames(world: World) -> bool:
    """Stop a healthy process while frames are under way to it: all that it reads is in Kafka when it has ended."""
    process = world.process
    assert process is not None
    world.exchange.beat(moves_account=world.moves_account)
    world.disturb()
    world.orchestrator.stop()
    if not await until(world, lambda: process.is_over, timeout_s=30.0):
        world.find("it did not stop without faults")
    elif process.left:
        world.find(f"a stop without faults has left {process.left} frames")
    elif not await until(world, lambda: _is_healthy(world), timeout_s=60.0):
        world.find(f"it did not start again: {_state(world)}")
    return not world.findings


def _is_healthy(world: World) -> bool:
    process = world.process
    return process is not None and world.is_well and process.has_caught_up and world.is_quiet


def _polls(world: World, part: Part) -> int:
    service = None if world.process is None else world.process.service
    polling = None if service is None else service.rest_service.polling
    return 0 if polling is None else polling.stats[part].answers


def _state(world: World) -> str:
    process = world.process
    if process is None or process.service is None:
        return "no service"
    service = process.service
    return (
        f"{process.lifetime.name} error={process.error!r} without_line={sorted(service.receiver.without_line)} "
        f"paused={service.stream.is_paused} lag={service.stream.stats.lag_frames} "
        f"lines={[(line.name, line.status.state.value, line.status.last_cause) for line in service.lines]} "
        f"gap_fill={service.rest_service.gap_fill.stats} {world.is_quiet}"
    )


def _held_beside_half_open_ms(world: World, plan: SeedPlan) -> int:
    """A private line joins with the first frame that both bring; until then its own wait for a half-open one to end."""
    if all(name != half_open_line.__name__ for _, name in plan.strikes):
        return 0
    return int(1_500 * world.settings.bybit_ping_interval) + _HELD_BESIDES_MS  # pongs are waited for half as long


def _judge(world: World, plan: SeedPlan) -> Proved:
    records = {topic: published(topic, world.broker.records(world.settings.topic(topic.value))) for topic in Topic}
    exchange = world.exchange
    unread_ms = max(UNREAD_MS, int(world.settings.bybit_stale_after * 1000) + _HELD_BESIDES_MS)
    slow_ms = _SLOW_MARKET_MS
    if any(name == quiet_market.__name__ for _, name in plan.strikes):
        slow_ms += int(QUIET_S * 1000)
    certain = sum(one.has_arrived and _is_certain(one) for one in exchange.malformed)
    evidence = Evidence(
        frames={channel: frames for channel, frames in exchange.frames.items() if channel[0] != "private"},
        sent=exchange.sent(),
        records=records,
        outages=world.outages,
        dead_letters=certain,
        uncertain_dead_letters=len(exchange.malformed)
        - certain
        + exchange.rest.wrong_answers
        + world.uncertain_dead_letters,
        unread_ms=unread_ms,
        early_ms=slow_ms,
        late_ms=slow_ms,
        gaps_an_outage=50,
        overlap_ms=unread_ms,
        beginning_ms=2_500,
        wrong_times=exchange.wrong_times,
        misdated=exchange.misdated,
        refused=[_as_published(letter) for letter in world.disk.content.dead_letters],
    )
    proved = judge(evidence)
    for finding in (*evidence.findings, *_set_aside_by_mistake(world)):
        world.find(finding)
    for finding in (*_gaps_in_calm(world, evidence), *_filled_outside_gaps(evidence), *_false_quotes(evidence)):
        world.find(finding)
    for finding in _missing_in_filled_gaps(evidence, world.most_ahead_ms):
        world.find(finding)
    if _MAKE_SILENT.isdisjoint(name for _, name in plan.strikes):
        for finding in _stale_in_quiet(evidence):
            world.find(finding)
    if _MAKE_SKIPS.isdisjoint(name for _, name in plan.strikes):
        for finding in _skips_of_one_line(evidence):
            world.find(finding)
    for finding in check_account(
        exchange,
        records,
        world.outages,
        unread_ms=max(unread_ms, _held_beside_half_open_ms(world, plan)),
    ):
        world.find(finding)
    return proved


def _set_aside_by_mistake(world: World) -> Iterator[str]:
    """Find records in the journal's table that Kafka accepts."""
    for letter in world.disk.content.dead_letters:
        topic = world.settings.topic(letter.topic)
        is_invalid = "INVALID_RECORD" in letter.reason and not letter.reason.startswith("not tried")
        if is_invalid and not world.broker.refuses_value(topic, letter.body):
            yield f"{letter.topic} {letter.position}: set aside, though Kafka accepts it: {letter.reason}"


def _gaps_in_calm(world: World, evidence: Evidence) -> Iterator[str]:
    """Find gaps that begin after the last fault, such as when a line is replaced too early."""
    for record in evidence.records[Topic.INGEST_GAPS]:
        gap = gap_of(record)
        # When lines stop one after the other, or at the market's end, a gap may be noted although nothing was lost.
        is_of_the_end = record.value["reason"] in _REASONS_OF_THE_END or gap.to_ms >= world.calm_until_ms
        if gap.from_ms > world.calm_since_ms + world.most_ahead_ms and not is_of_the_end:
            yield f"{record.key}: a gap without a fault since {world.calm_since_ms}: {record.value}"


def _stale_in_quiet(evidence: Evidence) -> Iterator[str]:
    """Find gaps of lines that were closed as stale although only the market was quiet."""
    for record in evidence.records[Topic.INGEST_GAPS]:
        if record.value["reason"].endswith("stale"):
            yield f"{record.key}: its line was stale in a quiet market: {record.value}"


def _skips_of_one_line(evidence: Evidence) -> Iterator[str]:
    """Find updates recorded as skipped although all their lines were open before and after them."""
    for record in evidence.records[Topic.INGEST_GAPS]:
        gap = gap_of(record)
        if record.value["reason"] != SKIPPED or gap.from_sequence is None or gap.to_sequence is None:
            continue
        category, _, name = gap.feed.partition(":")
        between = [
            event
            for event in evidence.sent[category, name]
            if gap.from_sequence < event.identities[0] < gap.to_sequence
        ]
        if between and all(any(_is_steady(one, event.sent_ms) for one in event.connections) for event in between):
            yield f"{gap.feed}: {between[0].identities[0]} is recorded as skipped, and a line has brought it"


def _missing_in_filled_gaps(evidence: Evidence, ahead_ms: int) -> Iterator[str]:
    """Find trades that are missing in a gap marked filled, and were not refused either."""
    refused = [record for record in evidence.refused if record.topic is Topic.MARKET_TRADES]
    found = {record.value["trade_id"] for record in (*evidence.records[Topic.MARKET_TRADES], *refused)}
    for record in evidence.records[Topic.INGEST_GAPS]:
        category, _, name = record.key.partition(":")
        if record.value["healed"] != "yes" or not name.startswith("publicTrade."):
            continue
        gap = gap_of(record)
        others = [other for other in map(gap_of, evidence.records[Topic.INGEST_GAPS]) if other.feed == gap.feed]
        for event in evidence.sent[category, name]:
            # After the machine's clock was set, a gap may end too late and overlap with one that is not filled.
            is_in_it = gap.from_ms + _MATCHED_BEFORE_MS < event.sent_ms < gap.to_ms - ahead_ms
            if is_in_it and sum(other.holds(event.sent_ms, None) for other in others) == 1:
                for identity in set(event.identities) - found:
                    yield f"{record.key}: {identity} sent at {event.sent_ms} is missing in a gap that is marked filled"


def _false_quotes(evidence: Evidence) -> Iterator[str]:
    """Find spot tickers whose bid and ask were never in the book together."""
    quotes = set(_quotes(evidence.frames["spot", BOOKS]))
    for record in evidence.records[Topic.MARKET_DATA]:
        if record.value["category"] == "spot" and record.value["source"] == "websocket":
            quote = record.value["bid"], record.value["ask"]
            if record.value["quote_timestamp"] is not None and quote not in quotes:
                yield f"{record.key}: bid and ask {quote} were never in the book together"


def _quotes(frames: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    sides: dict[str, dict[str, str]] = {"b": {}, "a": {}}
    for frame in frames:
        for name, side in sides.items():
            if frame["type"] == "snapshot":
                side.clear()
            side.update(frame["data"][name])
        bids, asks = ([price for price, size in side.items() if float(size)] for side in sides.values())
        yield max(bids, key=float), min(asks, key=float)


def _is_steady(connection: StreamConnection, at_ms: int) -> bool:
    closed_ms = connection.closed_ms
    was_there = connection.opened_ms < at_ms - _JOINED_AFTER_MS
    return was_there and (closed_ms is None or closed_ms > at_ms + _JOINED_AFTER_MS)


def _filled_outside_gaps(evidence: Evidence) -> Iterator[str]:
    """Find trades recovered by REST that lie in no gap, including those before the first frame."""
    if evidence.misdated:
        return  # beside a trade with a wrong time it may be uncertain which of the two is wrong: both are published
    for record in evidence.records[Topic.MARKET_TRADES]:
        if record.value["healed"]:
            category, symbol = record.value["category"], record.value["symbol"]
            at_ms = in_ms(record.value["timestamp"])
            if not any(gap.holds(at_ms, None) for gap in evidence.gaps_of(f"{category}:publicTrade.{symbol}")):
                yield f"{record}: trade {record.value['trade_id']} was healed, and lies in no gap"


def _is_ours(failure: dict[str, Any]) -> bool:
    """Return whether a failure counts: not those of the simulation's end, or of answers to ended processes."""
    if "destroyed" in failure["message"]:
        return False
    return not (failure["message"].startswith("Future") and isinstance(failure.get("exception"), AiokafkaError))


def _is_certain(malformed: Any) -> bool:
    closed_ms = malformed.socket.closed_ms
    return closed_ms is None or malformed.sent_ms < closed_ms - UNREAD_MS


def _as_published(refused: RefusedRecord) -> PublishedRecord:
    topic, value = Topic(refused.topic), msgspec.json.decode(refused.body)
    key = f"{value['category']}:{value['symbol']}"
    headers = {"exchange-ms": str(in_ms(value["timestamp"])).encode()}
    return PublishedRecord(topic, -1, -1, key, value, headers, refused.position, refused.record_index)


@contextmanager
def _deferred_garbage_collection() -> Iterator[None]:
    """Freeze existing objects and collect garbage at the run's end: scanning all modules takes a fifth more."""
    was_enabled = gc.isenabled()
    gc.disable()
    gc.freeze()
    try:
        yield
        gc.collect()
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()


@contextmanager
def _groups_of(frames: int, batch_bytes: int) -> Iterator[None]:
    """Bound the groups and batches; with small groups the next one is translated early."""
    values: list[tuple[ModuleType, str, int]] = [
        (publishing, "_GROUP_FRAMES", frames),
        (publishing, "_BACKLOG_GROUP_FRAMES", 2 * frames),
        (publishing, "_TRANSLATE_AHEAD_FRAMES", frames // 5),
        (addresses, "_BATCH_BYTES", batch_bytes),
    ]
    before = [(module, name, getattr(module, name)) for module, name, _ in values]
    for module, name, value in values:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


@contextmanager
def _logging(world: World | None) -> Iterator[None]:
    """Drop the program's log lines, or add them to the trace."""
    before = structlog.get_config()

    def add(_: object, method: str, event: MutableMapping[str, Any]) -> str:
        assert world is not None
        fields = " ".join(f"{name}={value}" for name, value in event.items() if name != "event")
        world.note(f"    {method} {event['event']} {fields}")
        raise structlog.DropEvent

    level = logging.CRITICAL if world is None else logging.INFO
    structlog.configure(
        processors=[add],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.configure(**before)
