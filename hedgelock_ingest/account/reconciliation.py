"""Comparison of the stream's balances with a REST poll, which reveals stream messages that never arrived."""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

import msgspec

from hedgelock_ingest.errors import FrameError, TopicMismatch
from hedgelock_ingest.kafka.consumer import ConsumedRecord, read_span
from hedgelock_ingest.kafka.tail import Filter, tail
from hedgelock_ingest.models.account import AccountRaw
from hedgelock_ingest.models.times import unix_ms
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.messages import DECODE_ERRORS
from hedgelock_ingest.settings import Settings

TOLERANCE_MS = 10_000
"""Minimum age of the stream's balance, by Bybit's clock, before a difference counts: else a change is in flight."""

LOOK_BACK_MS = 600_000
_POLLED = "rest:wallet"
_STREAMED = "websocket:"
_FRAME = "websocket:wallet"


class Balances(NamedTuple):
    """Balances by coin at a time; in a complete list, coins that are absent have a balance of zero."""

    at_ms: int
    balances: Mapping[str, Decimal]
    is_complete: bool


class Difference(NamedTuple):
    """A coin whose REST balance differs from the balance `observed` in the stream or the view at `observed_at_ms`."""

    coin: str
    rest: Decimal
    observed: Decimal
    observed_at_ms: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """
    Comparison of a REST poll with the stream.

    `missed` are balances that the private stream should have sent and did not; `in_view` those that are wrong in
    `account-updates`. `frames` counts the wallet frames of the private stream in the compared time. `has_stream` is
    false if no stream ever sent data of this account: then nothing is compared.
    """

    at: datetime
    coins: int
    frames: int
    has_stream: bool
    missed: list[Difference] = field(default_factory=list)
    in_view: list[Difference] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Whether nothing differs, apart from changes in flight."""
        return not (self.missed or self.in_view)


async def compare(settings: Settings, polled: AccountRaw) -> Comparison:
    """
    Compare a poll of the wallet with the stream from ten minutes before it on, and with the last view.

    The stream's balances apply on top of the oldest poll of that time. A difference is checked again when the poll is
    as old as the tolerance, since the frame of a change may arrive after the poll.

    Args:
        settings: Connection to Kafka.
        polled: The message of a wallet poll.

    Raises:
        KafkaUnavailable: No answer, or not in time.
        FrameError: A topic holds a record of a foreign format.
    """
    found = await _compared(settings, polled)
    age_ms = time.time() * 1000 - unix_ms(polled.timestamp)
    if not found.agrees and age_ms < TOLERANCE_MS:
        await asyncio.sleep(min(TOLERANCE_MS - age_ms, TOLERANCE_MS) / 1000)
        found = await _compared(settings, polled)
    return found


def missed_changes(rest: Balances, earlier: Iterable[Balances], tolerance_ms: int) -> list[Difference]:
    """
    List the coins whose last balance before `rest` differs from it, and is older by more than the tolerance.

    A coin with a balance within the tolerance, before or after, may be in flight and is skipped; so is a coin without
    any earlier balance.
    """
    known = sorted((each for each in earlier if each.at_ms <= rest.at_ms + tolerance_ms), key=lambda each: each.at_ms)
    found = []
    for coin in sorted({coin for each in (rest, *known) for coin in each.balances}):
        last = next((each for each in reversed(known) if each.is_complete or coin in each.balances), None)
        if last is not None and last.at_ms < rest.at_ms - tolerance_ms:
            found.append(Difference(coin, _of(coin, rest), _of(coin, last), last.at_ms))
    return [each for each in found if each.rest != each.observed]


def wrong_in_view(rest: Balances, view: Balances, streamed: Iterable[Balances], tolerance_ms: int) -> list[Difference]:
    """
    List the coins whose balance in the view differs from `rest`, without a change by the stream since.

    The view adopts polls, so a lasting difference means that it is not updated.
    """
    since = [each for each in streamed if each.at_ms >= rest.at_ms - tolerance_ms]
    if any(each.is_complete for each in since):
        return []
    in_flight = {coin for each in since for coin in each.balances}
    coins = sorted((rest.balances.keys() | view.balances.keys()) - in_flight)
    found = [Difference(coin, _of(coin, rest), _of(coin, view), view.at_ms) for coin in coins]
    return [each for each in found if each.rest != each.observed]


def _of(coin: str, balances: Balances) -> Decimal:
    return balances.balances.get(coin, Decimal(0))


async def _compared(settings: Settings, polled: AccountRaw) -> Comparison:
    balances = {coin: balance.wallet_balance for coin, balance in (polled.balances or {}).items()}
    rest = Balances(unix_ms(polled.timestamp), balances, is_complete=True)
    wallet = WalletRecords(polled.account_id)
    records: AsyncGenerator[Sequence[ConsumedRecord]] = read_span(
        settings, [Topic.ACCOUNT_RAW, Topic.ACCOUNT_UPDATES], from_ms=rest.at_ms - LOOK_BACK_MS
    )
    async for group in records:
        for record in group:
            wallet.take(record)
    if wallet.view is None:
        wallet.view = await _last_view(settings, polled.account_id)
    streamed, first_poll = wallet.streamed, wallet.oldest_poll_before(rest.at_ms)
    has_stream = wallet.view is not None or wallet.has_stream
    return Comparison(
        at=polled.timestamp,
        coins=len(balances),
        frames=wallet.frames,
        has_stream=has_stream,
        missed=missed_changes(rest, [*first_poll, *streamed], TOLERANCE_MS) if has_stream else [],
        in_view=wrong_in_view(rest, wallet.view, streamed, TOLERANCE_MS) if wallet.view else [],
    )


async def _last_view(settings: Settings, account_id: str) -> Balances | None:
    """Read the last view, however old: it is the state that consumers see."""
    only = Filter(key=account_id)
    try:
        async for record in tail(settings, Topic.ACCOUNT_UPDATES, count=1, only=only):
            return None if record.value is None else _view(_value.decode(record.value))
    except (TopicMismatch, *DECODE_ERRORS):
        return None
    return None


class _Balance(msgspec.Struct):
    wallet_balance: Decimal


class _Detail(msgspec.Struct):
    as_of: datetime | None = None


class _AccountValue(msgspec.Struct):
    """Value of `account_raw`, or, with `seen`, of `account-updates`."""

    account_id: str
    timestamp: datetime
    balances: dict[str, Decimal | _Balance] | None
    origin: str = ""
    seen: dict[str, datetime] | None = None
    balances_detail: dict[str, _Detail] | None = None


_value = msgspec.json.Decoder(_AccountValue)


class WalletRecords:
    """Balances of one account in both topics; `view` is the last merged view, `frames` counts the wallet's frames."""

    def __init__(self, account_id: str) -> None:
        self.view: Balances | None = None
        self.frames = 0
        self._account_id = account_id
        self._balances: list[tuple[bytes, Balances]] = []
        self._stream_journals: set[bytes] = set()

    @property
    def has_stream(self) -> bool:
        return bool(self._stream_journals)

    @property
    def streamed(self) -> list[Balances]:
        """Balances of the stream, with its own REST answers, such as the snapshot after a reconnect."""
        return [balances for journal_id, balances in self._balances if journal_id in self._stream_journals]

    def oldest_poll_before(self, at_ms: int) -> list[Balances]:
        """Return the poll on top of which the stream's balances apply, or nothing."""
        polls = [balances for _, balances in self._balances if balances.is_complete and balances.at_ms < at_ms]
        return [min(polls, key=lambda poll: poll.at_ms)] if polls else []

    def take(self, record: ConsumedRecord) -> None:
        """Add a record of either topic; records of other producers are ignored."""
        if record.value is None or record.journal_id is None:
            return
        try:
            value = _value.decode(record.value)
        except DECODE_ERRORS as error:
            raise FrameError(
                f"topic={record.topic} partition={record.partition} offset={record.offset} is not a HedgeLock record"
            ) from error
        is_of_stream = value.seen is not None or value.origin.startswith(_STREAMED)
        if is_of_stream:
            self._stream_journals.add(record.journal_id)
        if value.account_id != self._account_id or value.balances is None:
            return
        if value.seen is not None:
            self.view = _view(value)
        elif value.origin in (_POLLED, _FRAME):
            found = Balances(unix_ms(value.timestamp), _new_balances(value), is_complete=value.origin == _POLLED)
            self._balances.append((record.journal_id, found))
            self.frames += is_of_stream


def _view(value: _AccountValue) -> Balances:
    seen = value.seen or {}
    return Balances(unix_ms(seen.get("wallet", value.timestamp)), _balances(value), is_complete=True)


def _new_balances(value: _AccountValue) -> dict[str, Decimal]:
    """Return the balances that are as new as the record; the others were known before."""
    details = value.balances_detail or {}
    return {coin: amount for coin, amount in _balances(value).items() if _is_new(details.get(coin), value.timestamp)}


def _is_new(detail: _Detail | None, at: datetime) -> bool:
    return detail is None or (detail.as_of is not None and detail.as_of >= at)


def _balances(value: _AccountValue) -> dict[str, Decimal]:
    return {
        coin: balance if isinstance(balance, Decimal) else balance.wallet_balance
        for coin, balance in (value.balances or {}).items()
    }
