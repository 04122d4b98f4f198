"""
A simulated Bybit v5: WebSocket and REST on one port, with faults as switches.

The only package that imports aiohttp. It imports nothing of the project but its errors: with a decoder shared with
the product, one mistake would go unnoticed on both sides.
"""

from hedgelock_ingest.sandbox.exchange.keys import KEYS
from hedgelock_ingest.sandbox.exchange.scenario import Scenario
from hedgelock_ingest.sandbox.exchange.serve import serve
from hedgelock_ingest.sandbox.exchange.server import SimulatedExchange

__all__ = ["KEYS", "Scenario", "SimulatedExchange", "serve"]
