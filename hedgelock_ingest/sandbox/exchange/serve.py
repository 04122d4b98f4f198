"""Runs the simulated exchange as a separate process."""

import asyncio
import gc
import json
import os
import signal
import sys

import uvloop

from hedgelock_ingest.sandbox.exchange.keys import KEYS
from hedgelock_ingest.sandbox.exchange.scenario import Scenario
from hedgelock_ingest.sandbox.exchange.server import SimulatedExchange


def serve(scenario: Scenario | None = None) -> None:
    """
    Run until SIGINT or SIGTERM.

    When it listens it prints one line of JSON on stdout: `public_ws_url`, `private_ws_url`, `rest_url`, `pid`, and
    where the scenario names a key, `api_key` and `api_secret`, which belong to a simulated account and are no secret.

    Raises:
        SandboxError: The port is taken, or the recording cannot be read.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(scenario or Scenario()))


async def _serve(scenario: Scenario) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with SimulatedExchange(scenario) as exchange:
        addresses: dict[str, str | int] = {
            "public_ws_url": exchange.public_ws_url,
            "private_ws_url": exchange.private_ws_url,
            "rest_url": exchange.rest_url,
            "pid": os.getpid(),
        }
        if scenario.key is not None:
            addresses |= {"api_key": KEYS[scenario.key].api_key, "api_secret": KEYS[scenario.key].api_secret}
        sys.stdout.write(json.dumps(addresses) + "\n")
        sys.stdout.flush()
        _collect_garbage_rarely()
        await exchange.run_until(stopped)


def _collect_garbage_rarely() -> None:
    # Frames create no reference cycles, and a full collection delays all lines for tens of milliseconds.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
