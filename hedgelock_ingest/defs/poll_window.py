"""Ask Bybit at every slot of a window, and keep what each slot brought."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from hedgelock_ingest.defs.guard import is_left_behind
from hedgelock_ingest.defs.slots import Window, is_missed, slots
from hedgelock_ingest.errors import IngestError, KafkaError
from hedgelock_ingest.pipeline.polling import WALLET_INTERVAL_S
from hedgelock_ingest.polls import Poller, PollResult
from hedgelock_ingest.protocol.rest_wire import Part
from hedgelock_ingest.settings import Settings

PARTS = (Part.COLLATERAL, Part.LOANS, Part.WALLET)


@dataclass(slots=True)
class Polled:
    """What a window brought of one part; `troubles` counts the failed polls by their reason."""

    interval_ms: int
    results: list[PollResult] = field(default_factory=list)
    missed: list[int] = field(default_factory=list)
    troubles: Counter[str] = field(default_factory=Counter)


def intervals_ms(settings: Settings) -> dict[Part, int]:
    """Give the milliseconds between two polls of each part; the wallet has a stream of its own."""
    seconds = {
        Part.COLLATERAL: settings.bybit_collateral_poll_interval,
        Part.LOANS: settings.bybit_loan_poll_interval,
        Part.WALLET: WALLET_INTERVAL_S,
    }
    return {part: round(seconds[part] * 1000) for part in PARTS}


async def poll_window(settings: Settings, parts: Mapping[Part, int], window: Window) -> dict[Part, Polled]:
    """
    Poll each part at its slots, one after the other; one that comes too late is missed, never made up for.

    Args:
        settings: Whom to ask, and where to publish.
        parts: Milliseconds between two polls of each.
        window: Which slots.

    Raises:
        IngestError: Nothing could be opened: no key, no Bybit or no Kafka.
    """
    polled = {part: Polled(interval_ms) for part, interval_ms in parts.items()}
    due = sorted((slot_ms, part) for part, interval_ms in parts.items() for slot_ms in slots(window, interval_ms))
    async with AsyncExitStack() as stack:
        poller = await stack.enter_async_context(Poller(settings))
        for slot_ms, part in due:
            if is_missed(slot_ms, parts[part], _now_ms()) or not await _until(slot_ms):
                polled[part].missed.append(slot_ms)
                continue
            try:
                polled[part].results.append(await _ask(poller, part))
            except KafkaError as error:
                polled[part].troubles[str(error)] += 1
                await stack.aclose()  # a producer that failed once is not used again
                poller = await stack.enter_async_context(Poller(settings))
            except IngestError as error:
                if not error.transient:
                    raise
                polled[part].troubles[str(error)] += 1
    return polled


async def poll_once(settings: Settings, parts: Mapping[Part, int]) -> dict[Part, Polled]:
    """Poll each part now; raises as `poll_window` does, and whatever a poll raises."""
    async with Poller(settings) as poller:
        return {part: Polled(interval_ms, [await _ask(poller, part)]) for part, interval_ms in parts.items()}


async def _ask(poller: Poller, part: Part) -> PollResult:
    match part:
        case Part.COLLATERAL:
            return await poller.collateral()
        case Part.LOANS:
            return await poller.loans()
        case _:
            return await poller.wallet()


async def _until(slot_ms: int) -> bool:
    """Wait for a slot, unless nobody wants it any more."""
    while (left_ms := slot_ms - _now_ms()) > 0 and not is_left_behind():  # noqa: ASYNC110
        await asyncio.sleep(min(left_ms / 1000, 1.0))
    return not is_left_behind()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
