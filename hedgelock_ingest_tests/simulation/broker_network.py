"""
Connections to the simulated broker, and their faults.

The broker's callbacks run in a context without any process, so that they continue when a process is killed.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from aiokafka.errors import KafkaConnectionError
from aiokafka.errors import KafkaError as AiokafkaError

from hedgelock_ingest_tests.simulation.lifetime import Lifetime


class _Request(NamedTuple):
    serve: Callable[[], Any]
    answered: asyncio.Future[Any]
    may_be_lost: bool


class Network:
    """The shared part of all connections: latency, and the state of the broker."""

    def __init__(self, random: Random, latency_s: tuple[float, float]) -> None:
        """Begin with a running broker; each way takes a time within `latency_s`, drawn from `random`."""
        # Not copied: a broker may be made inside a process of the simulation.
        self.context = contextvars.Context()
        self.random = random
        self.slow_s = 0.0
        self.is_frozen = False
        self.is_away = False
        self.answers_to_lose = 0
        self.late_s = 0.0
        self._latency_s = latency_s
        self._connections: list[BrokerConnection] = []

    @property
    def has_bytes_under_way(self) -> bool:
        """Whether batches of a running process are under way."""
        return any(connection.has_bytes_under_way for connection in self._connections)

    def connect(self, lifetime: Lifetime) -> "BrokerConnection":
        """Return a new connection of a process; it fails when it is used while the broker is down."""
        self._connections = [each for each in self._connections if each.is_in_use]
        connection = BrokerConnection(self, lifetime)
        self._connections.append(connection)
        return connection

    def way_s(self) -> float:
        """Draw the time that the next bytes take."""
        shortest_s, longest_s = self._latency_s
        return shortest_s + (longest_s - shortest_s) * self.random.random() + self.slow_s

    def thaw(self) -> None:
        """Serve the waiting requests: those of a connection in order, the connections in random order."""
        self.is_frozen = False
        for connection in self._connections:
            connection.serve_on()

    def go_away(self) -> None:
        """Cut all connections; a broker that was not frozen has served some of the requests under way."""
        self.is_away = True
        for connection in self._connections:
            connection.die_amid(0.0 if self.is_frozen else self.random.random())
        self.is_frozen = False


class BrokerConnection:
    """
    One connection: the broker serves its requests one after the other, in order.

    It reconnects after it was cut, as aiokafka's clients do.
    """

    __slots__ = ("_answers", "_is_closed", "_is_late", "_lifetime", "_network", "_requests", "_timer")

    def __init__(self, network: Network, lifetime: Lifetime) -> None:
        """Begin with no requests."""
        self._network = network
        self._lifetime = lifetime
        self._requests: deque[_Request] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._answers: dict[asyncio.Future[Any], asyncio.TimerHandle] = {}
        self._is_closed = False
        self._is_late = False

    @property
    def is_in_use(self) -> bool:
        """Whether bytes are under way, or more may be sent."""
        return bool(self._requests) or not (self._is_closed or self._lifetime.is_dead)

    @property
    def has_bytes_under_way(self) -> bool:
        """Whether batches of a running process are under way."""
        return not self._lifetime.is_dead and any(request.may_be_lost for request in self._requests)

    def ask(self, serve: Callable[[], Any], *, may_be_lost: bool = False) -> asyncio.Future[Any]:
        """
        Send a request and return the future of its answer; cancelling it does not recall the request.

        Args:
            serve: The broker's work; an aiokafka error that it raises is the answer.
            may_be_lost: Whether a fault may lose the answer.
        """
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Any] = loop.create_future()
        if self._lifetime.is_dead:
            return answered
        if self._is_closed or self._network.is_away:
            answered.set_exception(KafkaConnectionError("no broker there"))
            return answered
        self._requests.append(_Request(serve, answered, may_be_lost))
        if self._timer is None:
            self._timer = loop.call_later(self._network.way_s(), self._serve_next, context=self._network.context)
        return answered

    def close(self) -> None:
        """Close the connection from the client's side; requests that were sent are still served."""
        if not self._lifetime.is_dead:
            self._is_closed = True
            self._fail(answered for _, answered, _ in self._requests)

    def serve_on(self) -> None:
        """Serve the next waiting request, if there is one."""
        if self._requests and self._timer is None:
            loop, network = asyncio.get_running_loop(), self._network
            self._timer = loop.call_later(network.way_s(), self._serve_next, context=network.context)

    def die_amid(self, served: float) -> None:
        """Serve a share of the waiting requests, 0.0 to 1.0, without answers; drop the rest and cut the connection."""
        for request in list(self._requests)[: round(len(self._requests) * served)]:
            _served(request)
        self._cut()

    def _serve_next(self) -> None:
        self._timer = None
        network = self._network
        if network.is_frozen or not self._requests:
            return
        if network.late_s and not self._is_late and (self._is_closed or self._lifetime.is_dead):
            self._is_late = True
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(network.late_s, self._serve_next, context=network.context)
            return
        request = self._requests[0]
        answer = _served(request)
        if request.may_be_lost and network.answers_to_lose:
            network.answers_to_lose -= 1
            self._cut()
            return
        self._requests.popleft()
        answered = request.answered
        if not answered.done():
            self._answers[answered] = asyncio.get_running_loop().call_later(
                network.way_s(), self._answer, answered, answer, context=network.context
            )
        self.serve_on()

    def _answer(self, answered: asyncio.Future[Any], answer: Any) -> None:
        del self._answers[answered]
        if answered.done() or self._lifetime.is_dead:
            return
        if isinstance(answer, AiokafkaError):
            answered.set_exception(answer)
        else:
            answered.set_result(answer)

    def _cut(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for timer in self._answers.values():
            timer.cancel()
        cut = [answered for _, answered, _ in self._requests] + list(self._answers)
        self._requests.clear()
        self._answers.clear()
        self._fail(cut)

    def _fail(self, all_of: Any) -> None:
        if self._lifetime.is_dead:  # the errors would not be retrieved, and asyncio would log them
            return
        for answered in all_of:
            if not answered.done():
                answered.set_exception(KafkaConnectionError("the connection was cut"))


def _served(request: _Request) -> Any:
    try:
        return request.serve()
    except AiokafkaError as error:
        return error
