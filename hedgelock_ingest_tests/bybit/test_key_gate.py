"""The gate before the account, against every key of the simulated exchange."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from hedgelock_ingest.bybit.key_gate import KeyGate, KeyState
from hedgelock_ingest.clock import SystemClock
from hedgelock_ingest.sandbox.exchange import SimulatedExchange
from hedgelock_ingest.sandbox.exchange.keys import KEYS, ApiKey
from hedgelock_ingest_tests.bybit.rest import client_for
from hedgelock_ingest_tests.sandbox.exchange_fixtures import eventually, running_exchange

KEY = "/v5/user/query-api"


@asynccontextmanager
async def gate_of(
    key: ApiKey | None, *, may_trade: bool = False
) -> AsyncIterator[tuple[KeyGate, SimulatedExchange, list[bool]]]:
    """Give a gate that asks often, its exchange, and what it told."""
    told: list[bool] = []
    options: dict[str, Any] = {"watch_interval_s": 0.05, "retry_interval_s": 0.05}
    async with running_exchange() as exchange, client_for(exchange, key) as rest:
        yield KeyGate(rest, may_trade=may_trade, on_change=told.append, clock=SystemClock(), **options), exchange, told


@asynccontextmanager
async def watching(gate: KeyGate) -> AsyncIterator[None]:
    """Watch the key for as long as the block lasts."""
    task = asyncio.create_task(gate.watch())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_read_only_key_passes() -> None:
    """The one kind of key that is wanted: nothing to warn of, and its end is known."""
    async with gate_of(KEYS["read-only"]) as (gate, _, told):
        status = await gate.check()

    assert (status.state, status.warnings, told) == (KeyState.ACCEPTED, [], [True])
    assert status.expires_at is not None


@pytest.mark.parametrize(
    ("name", "words"),
    [("trading", "read-only"), ("expired", "expired"), ("ip-bound", "IP addresses")],
)
async def test_other_keys_are_refused_with_the_remedy(name: str, words: str) -> None:
    """Who reads the refusal knows what to do about it."""
    async with gate_of(KEYS[name]) as (gate, _, told):
        status = await gate.check()

    assert status.state is KeyState.REFUSED
    assert words in (status.reason or "")
    assert told == []


async def test_key_of_another_environment_is_refused() -> None:
    """A mainnet key on the testnet is the commonest mistake of all."""
    async with gate_of(ApiKey("unknown")) as (gate, _, _told):
        status = await gate.check()

    assert status.state is KeyState.REFUSED
    assert "BYBIT_TESTNET" in (status.reason or "")


@pytest.mark.parametrize(
    ("name", "words"), [("expiring", "expires in 3 days"), ("no-spot", "permission Spot"), ("trading", "may trade")]
)
async def test_usable_keys_with_a_flaw_are_warned_of(name: str, words: str) -> None:
    """An operator hears of it days before it stops the account."""
    async with gate_of(KEYS[name], may_trade=True) as (gate, _, _told):
        status = await gate.check()

    assert status.state is KeyState.ACCEPTED
    assert any(words in warning for warning in status.warnings)


async def test_without_a_key_nothing_is_asked() -> None:
    """Public feeds need no gate, and its watch ends at once."""
    async with gate_of(None) as (gate, _, told):
        await asyncio.wait_for(gate.watch(), 30)

    assert (gate.status.state, told) == (KeyState.MISSING, [])


async def test_key_is_unknown_until_bybit_answers() -> None:
    """Not to be reached is no refusal: the gate stays shut, and opens with the answer."""
    async with gate_of(KEYS["read-only"]) as (gate, exchange, told):
        exchange.fail_rest("ret_code", path=KEY, ret_code=10006, count=None, seconds=30)
        assert (await gate.check()).state is KeyState.UNKNOWN
        assert told == []
        exchange.restore_rest()
    async with gate_of(KEYS["read-only"]) as (gate, exchange, told):
        exchange.fail_rest("ret_code", path=KEY, ret_code=10016, count=4)
        async with watching(gate):
            await eventually(lambda: gate.is_open)
    assert told == [True]


async def test_key_that_was_accepted_outlives_an_outage_of_rest() -> None:
    """Lines that stand are not closed because a question could not be asked."""
    async with gate_of(KEYS["read-only"]) as (gate, exchange, told):
        await gate.check()
        exchange.fail_rest("status", path=KEY, count=None)
        await gate.check()

    assert (gate.is_open, told) == (True, [True])


async def test_key_that_is_refused_later_shuts_the_gate_and_is_tried_again() -> None:
    """A key deleted at Bybit takes the account down, not the process; a mended one brings it back."""
    async with gate_of(KEYS["read-only"]) as (gate, exchange, told):
        await gate.check()
        async with watching(gate):
            exchange.fail_rest("ret_code", path=KEY, ret_code=10003, count=None)
            await eventually(lambda: gate.status.state is KeyState.REFUSED)
            exchange.restore_rest()
            await eventually(lambda: gate.is_open)

    assert told == [True, False, True]
