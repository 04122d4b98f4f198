"""What the stream told of balances, against what a REST poll tells: a message that never came shows here."""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

import msgspec

from hedgelock_ingest.errors import FrameError, TopicMismatch
from hedgelock_ingest.kafka.consumer import ConsumedRecord
from hedgelock_ingest.kafka.span import read_span
from hedgelock_ingest.kafka.tail import Filter, tail
from hedgelock_ingest.models.account import AccountRaw
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.settings import Settings

TOLERANCE_MS = 10_000
"""How old what the stream told must be, by Bybit's clock, before a difference counts: else a change is under way."""

LOOK_BACK_MS = 600_000
_POLLED = "rest:wallet"
_STREAMED = "websocket:"


class Told(NamedTuple):
    """Balances by coin as they were told of a time; a whole list means that coins it does not name are at zero."""

    at_ms: int
    balances: Mapping[str, Decimal]
    is_whole: bool


class Difference(NamedTuple):
    """A coin of which REST tells another balance than was told, and of what time that was."""

    coin: str
    rest: Decimal
    told: Decimal
    observed_at_ms: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """
    A REST poll against the stream.

    `missed` are balances that the private stream should have told of and did not; `in_view` those that consumers of
    `account-updates` see wrong. `frames` counts how often the private stream told of the wallet in the time that was
    looked at. `has_stream` is false where no stream ever told of this account: then nothing is compared.
    """

    at: datetime
    coins: int
    frames: int
    has_stream: bool
    missed: list[Difference] = field(default_factory=list)
    in_view: list[Difference] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Nothing differs but what is under way."""
        return not (self.missed or self.in_view)


async def compare(settings: Settings, polled: AccountRaw) -> Comparison:
    """
    Compare a poll of the wallet with what the stream told in the ten minutes before and since, and with its last view.

    What the stream told counts on top of the oldest poll of that time. A difference is looked at again when the poll
    is as old as the tolerance, since the frame about a change may come after the poll.

    Args:
        settings: How Kafka is reached.
        polled: The message of a wallet poll.

    Raises:
        KafkaUnavailable: No answer, or not in time.
        FrameError: A record in a topic of ours is not ours.
    """
    found = await _compared(settings, polled)
    age_ms = time.time() * 1000 - _milliseconds(polled.timestamp)
    if not found.agrees and age_ms < TOLERANCE_MS:
        await asyncio.sleep(min(TOLERANCE_MS - age_ms, TOLERANCE_MS) / 1000)
        found = await _compared(settings, polled)
    return found


def missed_changes(rest: Told, told: Iterable[Told], tolerance_ms: int) -> list[Difference]:
    """
    List the coins whose last word before `rest` is another one, and older by more than the tolerance.

    A coin that was told of within the tolerance, before or after, is under way and not judged; nor is one that was
    never told of.
    """
    known = sorted((each for each in told if each.at_ms <= rest.at_ms + tolerance_ms), key=lambda each: each.at_ms)
    found = []
    for coin in sorted({coin for each in (rest, *known) for coin in each.balances}):
        last = next((each for each in reversed(known) if each.is_whole or coin in each.balances), None)
        if last is not None and last.at_ms < rest.at_ms - tolerance_ms:
            found.append(Difference(coin, _of(coin, rest), _of(coin, last), last.at_ms))
    return [each for each in found if each.rest != each.told]


def wrong_in_view(rest: Told, view: Told, streamed: Iterable[Told], tolerance_ms: int) -> list[Difference]:
    """
    List the coins of which the view tells another balance than `rest`, though the stream told no change of them since.

    The view takes polls over, so that a difference that lasts means that it does not follow.
    """
    since = [each for each in streamed if each.at_ms >= rest.at_ms - tolerance_ms]
    if any(each.is_whole for each in since):
        return []
    under_way = {coin for each in since for coin in each.balances}
    coins = sorted((rest.balances.keys() | view.balances.keys()) - under_way)
    found = [Difference(coin, _of(coin, rest), _of(coin, view), view.at_ms) for coin in coins]
    return [each for each in found if each.rest != each.told]


def _of(coin: str, told: Told) -> Decimal:
    return told.balances.get(coin, Decimal(0))


async def _compared(settings: Settings, polled: AccountRaw) -> Comparison:
    balances = {coin: balance.wallet_balance for coin, balance in (polled.balances or {}).items()}
    rest = Told(_milliseconds(polled.timestamp), balances, is_whole=True)
    heard = _Heard(polled.account_id)
    records: AsyncGenerator[Sequence[ConsumedRecord]] = read_span(
        settings, [Topic.ACCOUNT_RAW, Topic.ACCOUNT_UPDATES], from_ms=rest.at_ms - LOOK_BACK_MS
    )
    async for group in records:
        for record in group:
            heard.take(record)
    if heard.view is None:
        heard.view = await _last_view(settings, polled.account_id)
    streamed, first_poll = heard.streamed, heard.oldest_poll_before(rest.at_ms)
    has_stream = heard.view is not None or heard.has_stream
    return Comparison(
        at=polled.timestamp,
        coins=len(balances),
        frames=heard.frames,
        has_stream=has_stream,
        missed=missed_changes(rest, [*first_poll, *streamed], TOLERANCE_MS) if has_stream else [],
        in_view=wrong_in_view(rest, heard.view, streamed, TOLERANCE_MS) if heard.view else [],
    )


async def _last_view(settings: Settings, account_id: str) -> Told | None:
    """Read the last view, however old: it is what consumers hold for true."""
    only = Filter(key=account_id)
    try:
        async for record in tail(settings, Topic.ACCOUNT_UPDATES, count=1, only=only):
            return None if record.value is None else _view(_value.decode(record.value))
    except (TopicMismatch, msgspec.DecodeError):
        return None
    return None


class _Balance(msgspec.Struct):
    wallet_balance: Decimal


class _Value(msgspec.Struct):
    """Of `account_raw`, or with `seen` of `account-updates`."""

    account_id: str
    timestamp: datetime
    balances: dict[str, Decimal | _Balance] | None
    origin: str = ""
    seen: dict[str, datetime] | None = None


_value = msgspec.json.Decoder(_Value)


class _Heard:
    """What the two topics hold of one account's wallet; `view` is the last one, `frames` counts those of the wallet."""

    def __init__(self, account_id: str) -> None:
        self.view: Told | None = None
        self.frames = 0
        self._account_id = account_id
        self._told: list[tuple[bytes, Told]] = []
        self._stream_journals: set[bytes] = set()

    @property
    def has_stream(self) -> bool:
        return bool(self._stream_journals)

    @property
    def streamed(self) -> list[Told]:
        """What the stream told, its own REST answers among it, such as the one after a line came back."""
        return [told for journal_id, told in self._told if journal_id in self._stream_journals]

    def oldest_poll_before(self, at_ms: int) -> list[Told]:
        """Give what the stream's words come on top of, or nothing."""
        polls = [told for _, told in self._told if told.is_whole and told.at_ms < at_ms]
        return [min(polls, key=lambda poll: poll.at_ms)] if polls else []

    def take(self, record: ConsumedRecord) -> None:
        """Take a record of either topic; what is not ours tells nothing."""
        if record.value is None or record.journal_id is None:
            return
        try:
            value = _value.decode(record.value)
        except msgspec.DecodeError as error:
            raise FrameError(
                f"topic={record.topic} partition={record.partition} offset={record.offset} is not a record of ours"
            ) from error
        is_of_stream = value.seen is not None or value.origin.startswith(_STREAMED)
        if is_of_stream:
            self._stream_journals.add(record.journal_id)
        if value.account_id != self._account_id or value.balances is None:
            return
        if value.seen is not None:
            self.view = _view(value)
        else:
            told = Told(_milliseconds(value.timestamp), _balances(value), is_whole=value.origin == _POLLED)
            self._told.append((record.journal_id, told))
            self.frames += is_of_stream


def _view(value: _Value) -> Told:
    seen = value.seen or {}
    return Told(_milliseconds(seen.get("wallet", value.timestamp)), _balances(value), is_whole=True)


def _balances(value: _Value) -> dict[str, Decimal]:
    return {
        coin: balance if isinstance(balance, Decimal) else balance.wallet_balance
        for coin, balance in (value.balances or {}).items()
    }


def _milliseconds(at: datetime) -> int:
    return round(at.timestamp() * 1000)
