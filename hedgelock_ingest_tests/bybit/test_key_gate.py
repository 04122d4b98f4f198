"""The key gate, against every key of the simulated exchange."""

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
    """Return a gate with short intervals, its exchange, and the changes that it reported."""
    changes: list[bool] = []
    options: dict[str, Any] = {"watch_interval_s": 0.05, "retry_interval_s": 0.05}
    async with running_exchange() as exchange, client_for(exchange, key) as rest:
        gate = KeyGate(rest, may_trade=may_trade, on_change=changes.append, clock=SystemClock(), **options)
        yield gate, exchange, changes


@asynccontextmanager
async def watching(gate: KeyGate) -> AsyncIterator[None]:
    """Watch the key during the block."""
    task = asyncio.create_task(gate.watch())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_read_only_key_passes() -> None:
    """This is the intended kind of key: no warning, and its expiry is known."""
    async with gate_of(KEYS["read-only"]) as (gate, _, changes):
        status = await gate.check()

    assert (status.state, status.warnings, changes) == (KeyState.ACCEPTED, [], [True])
    assert status.expires_at is not None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("trading", "read-only"),
        ("expired", "expired"),
        ("ip-bound", "IP addresses"),
        ("demo", "BYBIT_ALLOW_TRADING_KEY=true"),
    ],
)
async def test_other_keys_are_refused_with_an_action(name: str, words: str) -> None:
    """The refusal states what the operator must do."""
    async with gate_of(KEYS[name]) as (gate, _, changes):
        status = await gate.check()

    assert status.state is KeyState.REFUSED
    assert words in (status.reason or "")
    assert changes == []


async def test_key_of_another_environment_is_refused() -> None:
    """A mainnet key on the testnet is the most common mistake."""
    async with gate_of(ApiKey("unknown")) as (gate, _, _changes):
        status = await gate.check()

    assert status.state is KeyState.REFUSED
    assert "BYBIT_TESTNET" in (status.reason or "")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("expiring", "expires in 3 days"),
        ("no-spot", "permission Spot"),
        ("trading", "may trade"),
        ("demo", "rights and expiry are unknown"),
    ],
)
async def test_usable_keys_with_a_flaw_cause_a_warning(name: str, words: str) -> None:
    """An operator is warned days before the account stops."""
    async with gate_of(KEYS[name], may_trade=True) as (gate, _, _changes):
        status = await gate.check()

    assert status.state is KeyState.ACCEPTED
    assert any(words in warning for warning in status.warnings)


async def test_without_a_key_nothing_is_requested() -> None:
    """Public feeds need no key, and the watch ends at once."""
    async with gate_of(None) as (gate, _, changes):
        await asyncio.wait_for(gate.watch(), 30)

    assert (gate.status.state, changes) == (KeyState.MISSING, [])


async def test_key_is_unknown_until_bybit_answers() -> None:
    """A missing answer is no refusal: the gate stays closed, and opens with the answer."""
    async with gate_of(KEYS["read-only"]) as (gate, exchange, changes):
        exchange.fail_rest("ret_code", path=KEY, ret_code=10006, count=None, seconds=30)
        assert (await gate.check()).state is KeyState.UNKNOWN
        assert changes == []
        exchange.restore_rest()
    async with gate_of(KEYS["read-only"]) as (gate, exchange, changes):
        exchange.fail_rest("ret_code", path=KEY, ret_code=10016, count=4)
        async with watching(gate):
            await eventually(lambda: gate.is_open)
    assert changes == [True]


async def test_key_stays_accepted_during_an_outage_of_rest() -> None:
    """Open lines are not closed because a check failed."""
    async with gate_of(KEYS["read-only"]) as (gate, exchange, changes):
        await gate.check()
        exchange.fail_rest("status", path=KEY, count=None)
        await gate.check()

    assert (gate.is_open, changes) == (True, [True])


async def test_key_that_is_refused_later_closes_the_gate_and_is_checked_again() -> None:
    """A key deleted at Bybit stops the account, not the process; a restored one resumes it."""
    async with gate_of(KEYS["read-only"]) as (gate, exchange, changes):
        await gate.check()
        async with watching(gate):
            exchange.fail_rest("ret_code", path=KEY, ret_code=10003, count=None)
            await eventually(lambda: gate.status.state is KeyState.REFUSED)
            exchange.restore_rest()
            await eventually(lambda: gate.is_open)

    assert changes == [True, False, True]
