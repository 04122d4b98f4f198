"""Poll Bybit at every slot of a window, and collect the results."""

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from decimal import Decimal

from hedgelock_ingest.account.scheduled_polls import Poller, PollResult
from hedgelock_ingest.clock import SystemClock, wall_ms
from hedgelock_ingest.defs.polls.slots import PollWindow, is_missed, slots
from hedgelock_ingest.errors import IngestError, KafkaError, RecordRefused
from hedgelock_ingest.protocol.loans import moving_collateral
from hedgelock_ingest.protocol.rest_messages import Part
from hedgelock_ingest.settings import Settings

_CLOCK = SystemClock()
_WALLET_INTERVAL_S = 60.0
"""The wallet has a stream, in which Bybit rarely omits a message."""
POLLED_PARTS = (Part.COLLATERAL, Part.LOANS, Part.WALLET)


@dataclass(slots=True)
class Polled:
    """
    Results of one part in a window.

    `failures` counts the failed polls by reason. `prices` are the last prices in USDT of the collateral's coins, as far
    as Bybit reports them.
    """

    results: list[PollResult] = field(default_factory=list)
    missed: list[int] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    prices: dict[str, Decimal] = field(default_factory=dict)


def intervals_ms(settings: Settings) -> dict[Part, int]:
    """Return the milliseconds between two polls of each part."""
    seconds = {
        Part.COLLATERAL: settings.bybit_collateral_poll_interval,
        Part.LOANS: settings.bybit_loan_poll_interval,
        Part.WALLET: _WALLET_INTERVAL_S,
    }
    return {part: round(seconds[part] * 1000) for part in POLLED_PARTS}


async def poll_window(settings: Settings, parts: Mapping[Part, int], window: PollWindow) -> dict[Part, Polled]:
    """
    Poll each part at its slots, one after the other; a slot that is reached too late is missed, not polled late.

    Args:
        settings: Bybit's address and key, and the topics.
        parts: Milliseconds between two polls of each part.
        window: The window whose slots are polled.

    Raises:
        IngestError: The start failed for lack of a key, Bybit or Kafka. Later, only errors that are not transient.
    """
    polled = {part: Polled() for part in parts}
    due = sorted((slot_ms, part) for part, interval_ms in parts.items() for slot_ms in slots(window, interval_ms))
    async with _PollSession(settings) as session:
        for slot_ms, part in due:
            await asyncio.sleep(max(0.0, (slot_ms - wall_ms(_CLOCK)) / 1000))
            if is_missed(slot_ms, parts[part], wall_ms(_CLOCK)):
                polled[part].missed.append(slot_ms)
                continue
            try:
                polled[part].results.append(await session.poll(part, _number(part, slot_ms)))
            except IngestError as error:
                if not (error.transient or isinstance(error, RecordRefused)):
                    raise
                polled[part].failures[str(error)] += 1
        await _find_prices(session, polled)
    return polled


async def poll_once(settings: Settings, parts: Collection[Part]) -> dict[Part, Polled]:
    """Poll each part now; raises as `poll_window` does, and any error of a poll."""
    async with _PollSession(settings) as session:
        polled = {part: Polled([await session.poll(part)]) for part in parts}
        await _find_prices(session, polled)
    return polled


class _PollSession:
    """A poller that is reopened after Kafka failed: a failed producer is not used again."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stack = AsyncExitStack()
        self._poller: Poller | None = None

    async def __aenter__(self) -> "_PollSession":
        await self._open_poller()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def poll(self, part: Part, number: int | None = None) -> PollResult:
        poller = await self._open_poller()
        polls = {Part.COLLATERAL: poller.collateral, Part.LOANS: poller.loans, Part.WALLET: poller.wallet}
        try:
            return await polls[part](number)
        except KafkaError:
            self._poller = None
            await self._stack.aclose()
            raise

    async def price(self, coin: str) -> Decimal:
        return await (await self._open_poller()).price(coin)

    async def _open_poller(self) -> Poller:
        if self._poller is None:
            self._poller = await self._stack.enter_async_context(Poller(self._settings))
        return self._poller


def _number(part: Part, slot_ms: int) -> int:
    # Parts share a topic, and a number must be unique within a session.
    return slot_ms * len(POLLED_PARTS) + POLLED_PARTS.index(part)


async def _find_prices(session: _PollSession, polled: Mapping[Part, Polled]) -> None:
    """Request the prices of the present collateral; unavailable prices are omitted."""
    collateral = polled.get(Part.COLLATERAL)
    if collateral is None or not collateral.results or (loan := collateral.results[-1].loan) is None:
        return
    for pledged in moving_collateral(loan):
        with suppress(IngestError):
            collateral.prices[pledged.currency] = await session.price(pledged.currency)
