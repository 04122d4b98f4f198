"""Probes of Bybit: connectivity, clock difference and key permissions; read-only."""

import asyncio
import json
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from hedgelock_ingest.bybit.connection import Authenticate
from hedgelock_ingest.bybit.rest_client import RestClient
from hedgelock_ingest.bybit.rest_http import open_http
from hedgelock_ingest.bybit.rest_port import RestRequest, RestTiming
from hedgelock_ingest.bybit.socket_port import WebSocket
from hedgelock_ingest.bybit.websocket_clients import CONNECT_BY_CLIENT
from hedgelock_ingest.clock import SystemClock, wall_ms
from hedgelock_ingest.errors import (
    FrameError,
    KeyRefused,
    LineLost,
    ProbeFailed,
    RestError,
    RestRefused,
    RestUnavailable,
)
from hedgelock_ingest.protocol.api_key_rules import KeyVerdict, judge_key, judge_undescribed_key
from hedgelock_ingest.protocol.frames import Category
from hedgelock_ingest.protocol.messages import Control, decode
from hedgelock_ingest.protocol.rest_codes import NOT_IN_DEMO_TRADING
from hedgelock_ingest.settings import Settings

_TIME = RestRequest("get_server_time", {}, is_signed=False)
_CLOSE_TIMEOUT_S = 0.5
_CONCURRENT_REQUESTS = 8
_SILENT = ": Bybit, a proxy or a firewall on the way does not answer; allow it there, or correct the address"
_ONCE = RestTiming(connect_timeout_s=8.0, read_timeout_s=8.0, attempts=1)


class Listing(NamedTuple):
    """
    A symbol that is not trading: its status, None if it is not listed, and then the category that lists it.

    If Bybit did not report the status, `is_known` is false, and both are None.
    """

    symbol: str
    status: str | None
    listed_in: str | None
    is_known: bool = True


class ClockAnswer(NamedTuple):
    """Round trip of an answer, and how far our clock is ahead of Bybit's; both in seconds."""

    round_trip_s: float
    ahead_s: float


async def probe_websocket(
    settings: Settings, url: str, timeout_s: float, authenticate: Authenticate | None = None
) -> float:
    """
    Connect as a line does, ping, and return the seconds until the pong.

    Args:
        settings: Name the WebSocket client.
        url: URL of one category, or of the private lines.
        timeout_s: Total timeout.
        authenticate: If given, log in with its arguments before the ping.

    Raises:
        ProbeFailed: No connection, or no pong.
        KeyRefused: Bybit refuses the login.
    """
    try:
        async with asyncio.timeout(timeout_s):
            socket = await CONNECT_BY_CLIENT[settings.bybit_websocket_client](url)
            try:
                return await _ping(socket, authenticate)
            finally:
                await socket.close(_CLOSE_TIMEOUT_S)
    except TimeoutError as error:
        raise ProbeFailed(f"no pong from {url} within {timeout_s:g} s{_SILENT}") from error
    except LineLost as error:
        raise ProbeFailed(str(error)) from error
    except FrameError as error:
        raise ProbeFailed(f"{url} does not answer as Bybit does: {error}") from error


async def _ping(socket: WebSocket, authenticate: Authenticate | None) -> float:
    # Without a bound: nothing is subscribed, so only the answers to our requests arrive.
    answers: asyncio.Queue[bytes | None] = asyncio.Queue()

    def keep(frames: list[bytes], _: int) -> None:
        for each in frames:
            answers.put_nowait(each)

    socket.deliver(keep)
    socket.ended.add_done_callback(lambda _: answers.put_nowait(None))
    if authenticate is not None:
        await socket.send(json.dumps({"op": "auth", "args": list(authenticate())}))
        reply = await _answer(socket, answers, lambda reply: reply.op == "auth")
        if not reply.success:
            raise KeyRefused(f"Bybit refuses the login on a private line: {reply.ret_msg or 'no reason given'}")
    began = time.monotonic()
    await socket.send('{"op":"ping"}')
    await _answer(socket, answers, lambda reply: reply.is_pong)
    return time.monotonic() - began


async def probe_clock(settings: Settings, timeout_s: float) -> ClockAnswer:
    """
    Request Bybit's time; the first request opens the connection, the second one is measured.

    Raises:
        ProbeFailed: No answer in time.
        RestError: No usable answer.
    """
    http = open_http(settings.bybit_rest_url, None, now_ms=partial(wall_ms, SystemClock()), timing=_ONCE)
    try:
        async with asyncio.timeout(timeout_s):
            await http.send(_TIME)
            sent_s, began_s = time.time(), time.monotonic()
            server_s = (await http.send(_TIME)).time_ms / 1000
            round_trip_s = time.monotonic() - began_s
    except TimeoutError as error:
        # The session is not closed: the request may still use it.
        raise ProbeFailed(f"no answer from {settings.bybit_rest_url} within {timeout_s:g} s{_SILENT}") from error
    except RestError:
        http.close()
        raise
    http.close()
    if not server_s:
        raise RestUnavailable(f"{settings.bybit_rest_url} answers without Bybit's time")
    return ClockAnswer(round_trip_s, sent_s + round_trip_s / 2 - server_s)


async def probe_symbols(settings: Settings, category: str, symbols: Iterable[str], timeout_s: float) -> list[Listing]:
    """
    Request which symbols of a category are not trading, and then the status of each.

    All of them are returned; one without an answer about its status in time is marked so.

    Raises:
        ProbeFailed: No list of the trading symbols in time.
        RestError: No usable list of the trading symbols.
    """
    until_s = asyncio.get_running_loop().time() + timeout_s
    async with RestClient(settings, _ONCE) as rest:
        try:
            async with asyncio.timeout_at(until_s):
                trading = await rest.trading_symbols(category)
        except TimeoutError as error:
            raise ProbeFailed(f"no answer from {settings.bybit_rest_url} within {timeout_s:g} s{_SILENT}") from error
        found = {symbol: Listing(symbol, None, None, is_known=False) for symbol in sorted(set(symbols) - trading)}
        places = asyncio.Semaphore(_CONCURRENT_REQUESTS)

        async def request(symbol: str) -> None:
            async with places:
                with suppress(RestError):  # the status stays unknown
                    found[symbol] = await _listing(rest, category, symbol)

        with suppress(TimeoutError):
            async with asyncio.timeout_at(until_s), asyncio.TaskGroup() as tasks:
                for symbol in found:
                    tasks.create_task(request(symbol))
    return list(found.values())


async def _listing(rest: RestClient, category: str, symbol: str) -> Listing:
    status = await rest.symbol_status(category, symbol)
    if status is not None:
        return Listing(symbol, status, None)
    other = Category.LINEAR if category == Category.SPOT else Category.SPOT
    return Listing(symbol, None, None if await rest.symbol_status(other, symbol) is None else other)


async def probe_key(settings: Settings, timeout_s: float) -> KeyVerdict:
    """
    Request Bybit's information about our key, and judge it as a start does.

    Raises:
        ProbeFailed: No answer in time.
        RestError: Bybit refuses the key, or gives no usable answer.
    """
    try:
        async with asyncio.timeout(timeout_s), RestClient(settings, _ONCE) as rest:
            information = await rest.key_information()
            return judge_key(information, now_ms=rest.now_ms(), may_trade=settings.bybit_allow_trading_key)
    except RestRefused as error:
        if error.code != NOT_IN_DEMO_TRADING:
            raise
        return judge_undescribed_key(may_trade=settings.bybit_allow_trading_key)
    except TimeoutError as error:
        raise ProbeFailed(f"no answer from {settings.bybit_rest_url} within {timeout_s:g} s{_SILENT}") from error


async def _answer(
    socket: WebSocket, answers: "asyncio.Queue[bytes | None]", fits: Callable[[Control], bool]
) -> Control:
    while (raw := await answers.get()) is not None:
        reply = decode(raw)
        if isinstance(reply, Control) and fits(reply):
            return reply
    ending = socket.ended.result()
    raise LineLost(f"the connection ended before the answer: {ending.detail or ending.cause}", cause=ending.cause)
