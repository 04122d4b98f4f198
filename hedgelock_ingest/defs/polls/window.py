"""Ask Bybit at every slot of a window, and keep what each slot brought."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from decimal import Decimal

from hedgelock_ingest.account.poller import Poller, PollResult
from hedgelock_ingest.defs.polls.slots import Window, is_missed, slots
from hedgelock_ingest.errors import IngestError, KafkaError, RecordRefused
from hedgelock_ingest.protocol.loan_prices import moving_collateral
from hedgelock_ingest.protocol.rest_messages import Part
from hedgelock_ingest.settings import Settings

_WALLET_INTERVAL_S = 60.0
"""The wallet has a stream, of which Bybit may on rare occasions leave a message out."""
PARTS = (Part.COLLATERAL, Part.LOANS, Part.WALLET)


@dataclass(slots=True)
class Polled:
    """
    What a window brought of one part.

    `troubles` counts the failed polls by their reason. `prices` are the last prices in USDT of the coins that are
    collateral, as far as Bybit reports them.
    """

    interval_ms: int
    results: list[PollResult] = field(default_factory=list)
    missed: list[int] = field(default_factory=list)
    troubles: Counter[str] = field(default_factory=Counter)
    prices: dict[str, Decimal] = field(default_factory=dict)


def intervals_ms(settings: Settings) -> dict[Part, int]:
    """Give the milliseconds between two polls of each part; the wallet has a stream of its own."""
    seconds = {
        Part.COLLATERAL: settings.bybit_collateral_poll_interval,
        Part.LOANS: settings.bybit_loan_poll_interval,
        Part.WALLET: _WALLET_INTERVAL_S,
    }
    return {part: round(seconds[part] * 1000) for part in PARTS}


async def poll_window(settings: Settings, parts: Mapping[Part, int], window: Window) -> dict[Part, Polled]:
    """
    Poll each part at its slots, one after the other; a slot that is reached too late is missed, not made up for.

    Args:
        settings: Whom to ask, and where to publish.
        parts: Milliseconds between two polls of each.
        window: Which slots.

    Raises:
        IngestError: Nothing could be opened at first: no key, no Bybit or no Kafka. Later, only what is not transient.
    """
    polled = {part: Polled(interval_ms) for part, interval_ms in parts.items()}
    due = sorted((slot_ms, part) for part, interval_ms in parts.items() for slot_ms in slots(window, interval_ms))
    async with _Asking(settings) as asking:
        for slot_ms, part in due:
            await asyncio.sleep(max(0.0, (slot_ms - _now_ms()) / 1000))
            if is_missed(slot_ms, parts[part], _now_ms()):
                polled[part].missed.append(slot_ms)
                continue
            try:
                polled[part].results.append(await asking.ask(part, _number(part, slot_ms)))
            except IngestError as error:
                if not (error.transient or isinstance(error, RecordRefused)):
                    raise
                polled[part].troubles[str(error)] += 1
        await _find_prices(asking, polled)
    return polled


async def poll_once(settings: Settings, parts: Mapping[Part, int]) -> dict[Part, Polled]:
    """Poll each part now; raises as `poll_window` does, and whatever a poll raises."""
    async with _Asking(settings) as asking:
        polled = {part: Polled(interval_ms, [await asking.ask(part)]) for part, interval_ms in parts.items()}
        await _find_prices(asking, polled)
    return polled


class _Asking:
    """A poller that is opened anew after Kafka failed: a producer that failed once is not used again."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stack = AsyncExitStack()
        self._poller: Poller | None = None

    async def __aenter__(self) -> "_Asking":
        await self._opened()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def ask(self, part: Part, number: int | None = None) -> PollResult:
        poller = await self._opened()
        asks = {Part.COLLATERAL: poller.collateral, Part.LOANS: poller.loans, Part.WALLET: poller.wallet}
        try:
            return await asks[part](number)
        except KafkaError:
            self._poller = None
            await self._stack.aclose()
            raise

    async def price(self, coin: str) -> Decimal:
        return await (await self._opened()).price(coin)

    async def _opened(self) -> Poller:
        if self._poller is None:
            self._poller = await self._stack.enter_async_context(Poller(self._settings))
        return self._poller


def _number(part: Part, slot_ms: int) -> int:
    # Parts share a topic, and within a session a number must be there once.
    return slot_ms * len(PARTS) + PARTS.index(part)


async def _find_prices(asking: _Asking, polled: Mapping[Part, Polled]) -> None:
    """Ask for the prices of what is collateral now; one that cannot be had is left out."""
    collateral = polled.get(Part.COLLATERAL)
    if collateral is None or not collateral.results or (loan := collateral.results[-1].loan) is None:
        return
    for pledged in moving_collateral(loan):
        with suppress(IngestError):
            collateral.prices[pledged.currency] = await asking.price(pledged.currency)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
