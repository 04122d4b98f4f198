"""All connections of the exchange, open and closed, and the rules for new ones."""

import asyncio
import time
import uuid
from collections import deque
from random import Random

from hedgelock_ingest.errors import SandboxError
from hedgelock_ingest.sandbox.exchange.ledger import Runs
from hedgelock_ingest.sandbox.exchange.sockets.connection import ExchangeConnection

_WINDOW_S = 300.0
_CLOSE_TIMEOUT_S = 2.0
_ID_LETTERS = "0123456789abcdefghijklmnopqrstuv"
_CLOSED_KEPT = 1_000
KINDS = ("spot", "linear", "private")
"""Kinds of lines: the categories of the public sockets, and the private socket."""


class Lines:
    """
    The connections.

    `refuses` is None, or how new connections are refused: `reset`, or an HTTP status as text. New lines of
    `silent_kinds` receive no data.
    """

    def __init__(self, *, unsent_limit: int, per_window: int, random: Random) -> None:
        self.open: list[ExchangeConnection] = []
        self.closed: deque[ExchangeConnection] = deque(maxlen=_CLOSED_KEPT)
        self.opened_count = 0
        self.refused_count = 0
        self.refuses: str | None = None
        self.silent_kinds: set[str] = set()
        self._unsent_limit = unsent_limit
        self._per_window = per_window
        self._attempts: deque[float] = deque()
        self._random = random

    def refusal(self) -> str | None:
        """Count an attempt to connect, and return how it is refused; None accepts it."""
        now_s = time.monotonic()
        while self._attempts and now_s - self._attempts[0] > _WINDOW_S:
            self._attempts.popleft()
        self._attempts.append(now_s)
        refusal = self.refuses
        if refusal is None and len(self._attempts) > self._per_window:
            # Source: Bybit V5, Rate limit: at most 500 connections in 5 minutes.
            refusal = "403"
        self.refused_count += refusal is not None
        return refusal

    def add(self, kind: str, transport: asyncio.Transport) -> ExchangeConnection:
        """Add a new connection."""
        connection = ExchangeConnection(
            conn_id=self._new_id(kind),
            kind=kind,
            transport=transport,
            unsent_limit=self._unsent_limit,
            opened_ms=int(time.time() * 1000),
        )
        connection.is_silent = kind in self.silent_kinds
        self.open.append(connection)
        self.opened_count += 1
        return connection

    def _new_id(self, kind: str) -> str:
        if kind != "private":
            return str(uuid.UUID(int=self._random.getrandbits(128), version=4))
        return "".join(self._random.choices(_ID_LETTERS, k=20)) + f"-{self.opened_count:x}"

    def remove(self, connection: ExchangeConnection) -> None:
        """Remove a connection that has ended."""
        connection.ended("closed by the client")
        if connection in self.open:
            self.open.remove(connection)
            self.closed.append(connection)

    def select(
        self, category: str | None = None, nth: int | None = None, conn_id: str | None = None
    ) -> list[ExchangeConnection]:
        """
        Return open connections, in the order in which they were opened.

        Args:
            category: `spot`, `linear` or `private`; None for all.
            nth: Only this one of them, from 0; none when there are not so many.
            conn_id: Only the one with this id.

        Raises:
            SandboxError: There are no lines of this category.
        """
        if category is not None and category not in KINDS:
            raise SandboxError(f"no lines are of the category {category!r}; there are {', '.join(KINDS)}")
        found = [
            connection
            for connection in self.open
            if connection.is_open and category in (None, connection.kind) and conn_id in (None, connection.conn_id)
        ]
        if nth is not None:
            return found[nth : nth + 1]
        return found

    def written(self, category: str, channel: str) -> Runs:
        """Return the events of a channel that were written to at least one line while it was open."""
        return Runs(
            run
            for connection in (*self.closed, *self.open)
            if connection.kind == category
            for delivery in connection.all_deliveries()
            if delivery.channel == channel
            for run in delivery.all_runs()
        )

    def write(self, elapsed_s: float) -> None:
        """Write what was collected since the last tick, on all lines."""
        for connection in tuple(self.open):
            connection.flush()
            if connection.is_delayed:
                connection.write_delayed(elapsed_s)

    def close(self, connection: ExchangeConnection, code: int) -> None:
        """Close a line with a close frame; a client that does not answer is disconnected after 2 s."""
        connection.close(code)
        asyncio.get_running_loop().call_later(_CLOSE_TIMEOUT_S, connection.transport.abort)
