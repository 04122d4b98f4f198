"""The faults of the simulated world; each draws its own parameters, and ends after a time or happens once."""

from collections.abc import Callable
from typing import NamedTuple

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest_tests.simulation.market import SYMBOL
from hedgelock_ingest_tests.simulation.sockets import Socket
from hedgelock_ingest_tests.simulation.world import World

_TORN_S = 5.0
"""How old the frames may be that are lost with the end of a journal on a slow disk."""
_WORKING_ROOM_BYTES = 160_000
"""Free bytes with which a journal that has its reserve can work: what the frames of a second or two need."""
BOOKS = f"orderbook.50.{SYMBOL}"
QUIET_S = 30.0
"""How long markets may be quiet."""


class Fault(NamedTuple):
    """A fault with its name and its weight in the draw."""

    name: str
    weight: float
    strike: Callable[[World], None]


FAULTS: dict[str, Fault] = {}


def _fault(weight: float) -> Callable[[Callable[[World], None]], Callable[[World], None]]:
    def register(strike: Callable[[World], None]) -> Callable[[World], None]:
        FAULTS[strike.__name__] = Fault(strike.__name__, weight, strike)
        return strike

    return register


def _sockets(world: World, *, are_public: bool = False) -> list[Socket]:
    process = world.process
    if process is None:
        return []
    found = world.exchange.connections(process.lifetime)
    return [each for each in found if each.takes_data and not (are_public and each.kind == "private")]


def _one(world: World, *, are_public: bool = False) -> Socket | None:
    sockets = _sockets(world, are_public=are_public)
    return world.random.choice(sockets) if sockets else None


def _until_s(world: World, shortest_s: float, longest_s: float) -> float:
    return world.loop.now_s + world.random.uniform(shortest_s, longest_s)


def _nothing(until_s: float) -> None:
    """Do nothing."""


# The process


@_fault(3.0)
def kill(world: World) -> None:
    """Kill the process with SIGKILL after some further steps."""
    if world.process is not None:
        world.process.kill(after_steps=world.random.randrange(80))


@_fault(1.0)
def kill_again_and_again(world: World) -> None:
    """Kill the process several times, mostly during a start."""
    for _ in range(3):
        world.later(world.random.uniform(0.0, 4.0), lambda: kill(world))


@_fault(1.0)
def stop(world: World) -> None:
    """Stop the process with SIGTERM or Terminate; the next process follows."""
    world.disturb()
    world.orchestrator.stop()


# Lines


@_fault(2.0)
def drop_line(world: World) -> None:
    """Reset one connection."""
    if (socket := _one(world)) is not None:
        world.disturb()
        world.exchange.drop(socket)


@_fault(1.0)
def close_line(world: World) -> None:
    """Close one connection by the exchange."""
    if (socket := _one(world)) is not None:
        world.disturb()
        world.exchange.close(socket)


@_fault(1.5)
def drop_all_lines(world: World) -> None:
    """Reset every connection, and refuse new ones or let them hang for a while."""
    world.disturb()
    for socket in _sockets(world):
        world.exchange.drop(socket)
    kinds: list[Callable[[float], None]] = [world.exchange.refuse_connects, world.exchange.hang_connects, _nothing]
    world.random.choice(kinds)(_until_s(world, 0.2, 4.0))


@_fault(1.0)
def silence_line(world: World) -> None:
    """Send no more data on a public connection, which still answers pings."""
    if (socket := _one(world, are_public=True)) is not None:
        world.disturb()
        world.exchange.silence(socket)


@_fault(1.0)
def half_open_line(world: World) -> None:
    """Make a connection half open: it carries nothing, and no side is notified."""
    if (socket := _one(world)) is not None:
        world.disturb()
        world.exchange.half_open(socket)


@_fault(1.5)
def delay_line(world: World) -> None:
    """Delay one connection by up to 2 s."""
    if (socket := _one(world)) is not None:
        world.exchange.delay(socket, max(0.0, world.random.uniform(0.05, 2.0) - socket.latency_s))


@_fault(1.5)
def trouble_beside(world: World) -> None:
    """Disturb one public connection, and cut the others of its kind soon after."""
    exchange, socket = world.exchange, _one(world, are_public=True)
    if socket is None:
        return
    world.disturb(4.0)
    match world.random.randrange(4):
        case 0:
            exchange.silence(socket)
        case 1:
            exchange.half_open(socket)
        case 2:
            exchange.delay(socket, world.random.uniform(0.3, 0.9))
        case _:
            exchange.drop(socket)
    kind = socket.kind
    world.later(world.random.uniform(0.0, 3.0), lambda: _drop_others(world, socket, kind))


def _drop_others(world: World, spared: Socket, kind: str) -> None:
    world.disturb()
    for socket in _sockets(world, are_public=True):
        if socket.kind == kind and socket is not spared:
            world.exchange.drop(socket)


@_fault(0.7)
def spoil_subscriptions(world: World) -> None:
    """Reset lines; answer their new subscriptions late, never or after the data, or repeat old data."""
    exchange = world.exchange
    until_s = _until_s(world, 1.0, 5.0)
    match world.random.randrange(4):
        case 0:
            exchange.lose_acks(until_s)
        case 1:
            exchange.late_acks(world.random.uniform(0.1, 3.0), until_s)
        case 2:
            exchange.data_before_ack(until_s)
        case _:
            exchange.repeat_trades(until_s)
            if world.random.random() < 0.5:
                kill(world)
    drop_line(world)


# Frames


@_fault(2.0)
def skip_update(world: World) -> None:
    """Leave out a book's next update on one connection; each connection may be a little late."""
    if (socket := _one(world, are_public=True)) is None:
        return
    world.disturb(8.0)
    world.has_skipped = True
    world.exchange.skip(socket, BOOKS)
    kin = [each for each in _sockets(world, are_public=True) if each.kind == socket.kind]
    if world.random.random() < 0.5:
        late = [each for each in kin if each is not socket]  # they bring the skipped update later
    else:
        late = [each for each in kin if world.random.random() < 0.5]  # a skipping one then receives its snapshot late
    for each in late:
        _delay_for(world, each, world.random.uniform(0.15, 0.45), for_s=2.0)  # the program waits for 0.5 s


def _delay_for(world: World, socket: Socket, seconds: float, *, for_s: float) -> None:
    world.exchange.delay(socket, seconds)
    world.later(for_s, lambda: world.exchange.delay(socket, -seconds))


@_fault(1.0)
def double_frame(world: World) -> None:
    """Send the next frame of a channel twice on one connection."""
    socket = _one(world)
    if socket is not None and socket.channels:
        world.exchange.double(socket, world.random.choice(list(socket.channels)))


@_fault(1.0)
def malformed_frames(world: World) -> None:
    """Send some malformed frames."""
    for _ in range(world.random.randrange(1, 4)):
        if (socket := _one(world)) is not None:
            world.exchange.send_malformed(socket)


@_fault(0.5)
def restart_book(world: World) -> None:
    """Restart a book at 1; an update that was skipped just before cannot be missed then."""
    if world.has_skipped:
        return
    world.disturb(4.0)
    world.exchange.restart_book((world.random.choice(["spot", "linear"]), BOOKS))


@_fault(0.5)
def snapshot_again(world: World) -> None:
    """Send a new snapshot amid the updates of a book."""
    world.disturb(4.0)
    world.exchange.snapshot_again((world.random.choice(["spot", "linear"]), BOOKS))


# Kafka


@_fault(1.5)
def freeze_broker(world: World) -> None:
    """Freeze the broker; it serves the requests sent meanwhile when it continues."""
    world.broker.freeze()
    world.later(world.random.uniform(0.5, 12.0), lambda: _thaw(world))


@_fault(1.0)
def stop_while_frozen(world: World) -> None:
    """Freeze the broker for longer than a stop may take; old requests are served while the next process runs."""
    world.broker.freeze()
    world.later(world.random.uniform(0.1, 1.0), lambda: stop(world))
    world.later(
        world.random.uniform(world.settings.stop_timeout, world.settings.stop_timeout + 4.0), lambda: _thaw(world)
    )


def _thaw(world: World) -> None:
    if world.random.random() < 0.5 and not world.broker.is_slow:  # both together exceed the program's timeout
        _delay_last_bytes(world)
    world.broker.thaw()


def _delay_last_bytes(world: World) -> None:
    world.broker.delay_last_bytes(world.random.uniform(0.1, 0.28))  # the program waits for 0.3 s of quiet
    world.later(3.0, lambda: world.broker.delay_last_bytes(0.0))


@_fault(1.5)
def kill_broker(world: World) -> None:
    """Kill the broker, sometimes frozen before, and restart it on its data."""
    if world.random.random() < 0.4:
        world.broker.freeze()
        world.later(world.random.uniform(0.0, 1.0), world.broker.go_away)
    else:
        world.broker.go_away()
    world.later(world.random.uniform(1.1, 10.0), world.broker.come_back)


@_fault(1.5)
def lose_answers(world: World) -> None:
    """Lose the broker's answers to batches that it has appended."""
    world.broker.lose_answers(world.random.randrange(1, 4))


@_fault(0.7)
def slow_broker(world: World) -> None:
    """Add a long delay to each way to the broker and back."""
    world.broker.slow(world.random.uniform(0.02, 0.5))
    world.later(world.random.uniform(2.0, 8.0), lambda: _end_slowness(world))


def _end_slowness(world: World) -> None:
    # In small steps: bytes that an ended process sent slowly arrive before those sent after them.
    if world.broker.is_slow:
        world.broker.slow(0.2)
        world.later(0.6, lambda: world.broker.slow(0.0))


def begin_badly(world: World) -> None:
    """Kill the first process amid its first bytes, sometimes after it has waited for the broker."""
    if world.random.random() < 0.5:
        world.broker.freeze()
        world.later(world.random.uniform(0.3, 1.5), lambda: _thaw(world))
    kill_amid_bytes(world)


@_fault(1.5)
def kill_amid_bytes(world: World) -> None:
    """Kill the process while batches are under way to the broker; they arrive when the next process has started."""
    _delay_last_bytes(world)
    _kill_amid_bytes(world, world.loop.now_s + 2.0)


def _kill_amid_bytes(world: World, until_s: float) -> None:
    process = world.process
    if process is not None and world.broker.has_bytes_under_way:
        process.kill()
    elif world.loop.now_s <= until_s:
        world.later(0.000_5, lambda: _kill_amid_bytes(world, until_s))


@_fault(1.5)
def die_together(world: World) -> None:
    """Kill broker and process together just after the broker's restart: bytes under way never arrive."""
    world.broker.freeze()
    world.later(world.random.uniform(0.5, 8.0), lambda: _go_on_and_die(world))


def _go_on_and_die(world: World) -> None:
    now_s = world.loop.now_s
    if world.random.random() < 0.5:
        world.broker.thaw()
        world.later(world.random.uniform(0.0, 0.02), lambda: _die_together(world, now_s + 1.0))
        return
    world.broker.slow(world.random.uniform(0.05, 0.2))
    world.broker.thaw()
    _die_behind_a_state(world, world.disk.content.state_position, now_s + 4.0)


def _die_behind_a_state(world: World, saved_position: int, until_s: float) -> None:
    """Wait until a state is saved, since the next group of frames may be under way then."""
    if world.loop.now_s > until_s:
        _end_slowness(world)
    elif world.disk.content.state_position != saved_position:
        _die_together(world, until_s)
    else:
        world.later(0.002, lambda: _die_behind_a_state(world, saved_position, until_s))


def _die_together(world: World, until_s: float) -> None:
    process = world.process
    if process is not None and world.broker.has_bytes_under_way:
        world.broker.freeze()  # a frozen broker serves nothing more when it is killed
        world.broker.go_away()
        process.kill()
        world.broker.slow(0.0)
        world.later(world.random.uniform(0.5, 4.0), world.broker.come_back)
    elif world.loop.now_s <= until_s:
        world.later(0.000_5, lambda: _die_together(world, until_s))
    else:
        _end_slowness(world)


@_fault(0.7)
def lose_leaders(world: World) -> None:
    """Remove the leaders of some partitions for a while."""
    topic = world.settings.topic(world.random.choice(list(Topic)).value)
    if topic in world.broker.topics:
        partitions = world.broker.partitions(topic)
        world.broker.leaderless(world.random.choice(partitions))
        world.later(world.random.uniform(0.5, 6.0), world.broker.lead_again)


@_fault(1.5)
def refuse_topic(world: World) -> None:
    """Refuse one topic for a while: without permission, without enough replicas, beyond a quota, or the producer."""
    busy = [Topic.MARKET_ORDER_BOOKS, Topic.MARKET_DATA]
    topic = world.settings.topic(world.random.choice([*Topic, *(10 * busy)]).value)
    longest_s = 12.0
    if world.random.random() < 0.5:  # so that many records wait for it
        freeze_broker(world)
        longest_s = 20.0
    world.broker.refuse(topic, world.random.choice([29, 19, 89, 45]))
    world.later(world.random.uniform(0.5, longest_s), lambda: world.broker.refuse(topic, None))


@_fault(0.7)
def refuse_old_records(world: World) -> None:
    """Refuse records of one topic by their age, and freeze the broker, so that some are older."""
    topic = world.settings.topic(world.random.choice(list(Topic)).value)
    world.broker.refuse_older(topic, world.random.randrange(500, 5_000))
    freeze_broker(world)


@_fault(0.7)
def refuse_some_values(world: World) -> None:
    """Refuse records by their content for good, as a broker that validates them does, often amid an outage."""
    topic = world.settings.topic(world.random.choice([Topic.MARKET_TRADES, Topic.MARKET_DATA]).value)
    world.broker.refuse_value(topic, b"%03d" % world.random.randrange(1_000))
    if world.random.random() < 0.7:
        world.random.choice([freeze_broker, kill_broker, kill, lose_answers])(world)


@_fault(0.7)
def compact(world: World) -> None:
    """Compact the compacted topic, mostly between a kill and the next start."""
    topic = world.settings.topic(Topic.ACCOUNT_UPDATES.value)
    if world.process is not None and world.random.random() < 0.7:
        world.process.kill()
    if topic in world.broker.topics:
        world.broker.compact(topic)


@_fault(0.4)
def refuse_large_records(world: World) -> None:
    """Lower the record limit of the book topic for good."""
    _limit_books(world, world.random.randrange(650, 900), is_reported=True)


@_fault(0.6)
def refuse_without_a_word(world: World) -> None:
    """Lower the actual limit of the book topic below the reported one for good: many batches exceed it, few records."""
    limit_bytes = world.random.choice([world.random.randrange(905, 935), world.random.randrange(1_500, 1_900)])
    _limit_books(world, limit_bytes, is_reported=False)
    if world.random.random() < 0.5:  # a new producer, which partitions have no state of yet
        world.later(world.random.uniform(0.0, 1.0), lambda: kill(world))


def _limit_books(world: World, limit_bytes: int, *, is_reported: bool) -> None:
    # Never more than before: a record that was refused could be taken behind later ones.
    topic = world.settings.topic(Topic.MARKET_ORDER_BOOKS.value)
    if topic in world.broker.topics:
        world.least_limit_bytes = min(world.least_limit_bytes, limit_bytes)
        world.broker.limit_bytes(topic, world.least_limit_bytes, is_reported=is_reported)


# The disk


@_fault(1.0)
def slow_disk(world: World) -> None:
    """Slow down commits."""
    world.disk.slow(world.random.uniform(0.02, 0.6))
    world.later(world.random.uniform(2.0, 8.0), lambda: world.disk.slow(0.0))


@_fault(1.0)
def fill_disk(world: World) -> None:
    """Refuse writes to the disk; the lines close until it accepts them again."""
    world.disturb(9.0)
    world.disk.fail_writes(True)
    world.later(world.random.uniform(0.5, 8.0), lambda: world.disk.fail_writes(False))


@_fault(1.0)
def crowd_disk(world: World) -> None:
    """
    Let others fill the disk, sometimes without Kafka: all of it for a while, and most of it for good.

    What they leave for good is enough once delivered frames are dropped.
    """
    world.disturb(9.0)
    if world.random.random() < 0.5:
        freeze_broker(world)
    room_bytes = world.random.randrange(_WORKING_ROOM_BYTES, 3 * _WORKING_ROOM_BYTES // 2)
    if world.random.random() < 0.5:
        world.disk.leave(room_bytes + world.disk.missing_bytes)
        return
    world.disk.leave(world.random.choice([0, world.random.randrange(_WORKING_ROOM_BYTES)]))
    world.later(world.random.uniform(2.0, 15.0), lambda: world.disk.leave(room_bytes + world.disk.missing_bytes))


@_fault(1.5)
def tear_journal(world: World) -> None:
    """Kill the process without a broker, and lose the journal's end or a group before it that Kafka does not have."""
    world.broker.go_away()
    world.later(world.random.uniform(1.0, 3.0), lambda: _kill_and_tear(world))
    world.later(world.random.uniform(3.5, 8.0), world.broker.come_back)


def _kill_and_tear(world: World) -> None:
    process = world.process
    if process is None or process.is_over or process.service is None or not world.broker.is_away:
        return
    world.disturb(since_s=_TORN_S)  # their connections may have been replaced since
    process.kill()
    groups = min(world.random.randrange(1, 4), world.disk.content.groups_after(world.broker.last_position()))
    if groups > 1 and world.random.random() < 0.5:
        # A ticker's change may follow whose snapshot was lost.
        world.uncertain_dead_letters += world.disk.content.last_position - world.broker.last_position()
        world.note(f"{world.disk.lose_group(groups - 1)} frames amid the journal are lost")
        return
    world.note(f"{world.disk.tear(groups)} frames are torn off the journal")


@_fault(0.4)
def lose_state(world: World) -> None:
    """Kill the process and lose the saved state."""
    process = world.process
    if process is not None and not process.is_over and process.service is not None:
        process.kill()
        world.disk.lose_state()


# Clock and REST


@_fault(0.8)
def set_clock(world: World) -> None:
    """Set the machine's wall clock, sometimes while lines are disturbed."""
    world.machine_clock.ahead_ns += int(world.random.uniform(-2.0, 2.0) * 1e9)
    world.most_ahead_ms = max(world.most_ahead_ms, world.machine_clock.ahead_ns // 1_000_000)
    if world.random.random() < 0.5:
        trouble_beside(world)


@_fault(1.5)
def spoil_rest(world: World) -> None:
    """Make REST late, behind, rate limited, unavailable or malformed."""
    exchange, until_s = world.exchange, _until_s(world, 1.0, 10.0)
    what = world.random.randrange(5)
    # An answer that is older than a frame about one coin does not update the others, until the next poll.
    world.is_wallet_old = world.is_wallet_old or what in (0, 1)
    match what:
        case 0:
            exchange.rest_late(world.random.uniform(0.3, 3.0))
            world.later(until_s - world.loop.now_s, lambda: exchange.rest_late(0.0))
        case 1:
            is_dated_now = world.random.random() < 0.5
            exchange.rest_behind(world.random.uniform(0.2, 3.0), is_dated_now=is_dated_now)
            world.later(until_s - world.loop.now_s, exchange.rest.behind_s.clear)
        case 2:
            exchange.rest_limited(until_s)
        case 3:
            exchange.rest_down(until_s)
        case _:
            exchange.rest_wrong(until_s)


# Markets: drawn separately, so that they change no other draw


@_fault(0.0)
def quiet_market(world: World) -> None:
    """Let nothing happen on the markets for longer than a line may be silent; nothing may be lost by that."""
    until_s = world.loop.now_s + world.market_random.uniform(8.0, QUIET_S)
    world.exchange.quieten(until_s)


@_fault(0.0)
def wrong_time(world: World) -> None:
    """Date a public frame wrongly, and often cut all lines of its kind soon after."""
    random, exchange = world.market_random, world.exchange
    channel = random.choice([channel for channel in exchange.logs if channel[0] != "private"])
    exchange.misdate(channel, random.choice([1_500, 3_000, 4_900, 10_000, 3_600_000, 86_400_000, -10_000, -3_600_000]))
    if random.random() < 0.7:
        world.later(random.uniform(0.1, 3.0), lambda: _drop_kind(world, channel[0]))


def _drop_kind(world: World, kind: str) -> None:
    world.disturb()
    for socket in _sockets(world, are_public=True):
        if socket.kind == kind:
            world.exchange.drop(socket)


MARKET_FAULTS = (quiet_market.__name__, wrong_time.__name__, wrong_time.__name__)


def end_lasting_faults(world: World) -> None:
    """End every lasting fault."""
    world.exchange.quieten(0.0)
    world.broker.delay_last_bytes(0.0)
    _end_slowness(world)
    if world.broker.is_frozen:
        _thaw(world)
    world.broker.come_back()
    world.broker.lead_again()
    world.broker.refuse_nothing()
    world.disk.slow(0.0)
    world.disk.fail_writes(False)
    exchange = world.exchange
    exchange.rest_late(0.0)
    exchange.rest.behind_s.clear()
    for until in (
        exchange.rest_limited,
        exchange.rest_down,
        exchange.rest_wrong,
        exchange.refuse_connects,
        exchange.hang_connects,
        exchange.lose_acks,
        exchange.data_before_ack,
        exchange.repeat_trades,
        exchange.refuse_key,
    ):
        until(0.0)
    exchange.late_acks(0.0, 0.0)
