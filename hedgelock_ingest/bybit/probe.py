"""Probes of Bybit: connectivity, clock difference and key permissions; read-only."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import NamedTuple

from pybit.exceptions import FailedRequestError, InvalidRequestError
from pybit.unified_trading import HTTP
from requests import RequestException
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from hedgelock_ingest.bybit.socket_port import USER_AGENT
from hedgelock_ingest.bybit.threads import in_daemon_thread
from hedgelock_ingest.errors import KeyRefused, ProbeFailed
from hedgelock_ingest.protocol.auth import websocket_signature
from hedgelock_ingest.settings import Settings

_CONNECT_AND_READ_TIMEOUT_S = 8
# Invalid key, wrong signature, no permission, address not allowed, key expired (Bybit V5, Error Codes).
_KEY_CODES = {10003, 10004, 10005, 10010, 33004}
_AUTH_LIFETIME_MS = 10_000


class ClockAnswer(NamedTuple):
    """Round trip of an answer, and how far our clock is ahead of Bybit's; both in seconds."""

    round_trip_s: float
    ahead_s: float


class KeyAnswer(NamedTuple):
    """Bybit's information about a key; `days_left` is None for one that is bound to addresses and does not expire."""

    is_read_only: bool
    days_left: int | None


async def probe_websocket(url: str, timeout_s: float, settings: Settings | None = None) -> float:
    """
    Connect, ping, and return the seconds until the pong.

    Args:
        url: URL of one category, or of the private lines.
        timeout_s: Total timeout.
        settings: If given, log in with their key before the ping.

    Raises:
        ProbeFailed: No connection, or no pong.
        KeyRefused: Bybit refuses the login.
    """
    try:
        async with (
            asyncio.timeout(timeout_s),
            connect(
                url,
                user_agent_header=USER_AGENT,
                ping_interval=None,
                proxy=True if url.startswith("wss:") else None,
            ) as connection,
        ):
            if settings is not None:
                await _authenticate(connection, settings)
            began = time.monotonic()
            await connection.send('{"op":"ping"}')
            await _answer(connection, lambda reply: "pong" in (reply.get("op"), reply.get("ret_msg")))
            return time.monotonic() - began
    except TimeoutError as error:
        raise ProbeFailed(f"no pong from {url} within {timeout_s:g} s") from error
    except (OSError, WebSocketException, ValueError, EOFError) as error:
        raise ProbeFailed(f"{url}: {str(error) or type(error).__name__}") from error


async def probe_clock(settings: Settings, timeout_s: float) -> ClockAnswer:
    """
    Request Bybit's time; the first request opens the connection, the second one is measured.

    Raises:
        ProbeFailed: No usable answer in time.
    """

    def request() -> ClockAnswer:
        http = _http(settings)
        http.get_server_time()
        sent = time.time()
        began = time.monotonic()
        server_s = int(http.get_server_time()["result"]["timeNano"]) / 1e9
        round_trip_s = time.monotonic() - began
        return ClockAnswer(round_trip_s, sent + round_trip_s / 2 - server_s)

    return await _call(request, settings, timeout_s)


async def probe_key(settings: Settings, timeout_s: float) -> KeyAnswer:
    """
    Request Bybit's information about our key.

    Raises:
        KeyRefused: Bybit refuses it.
        ProbeFailed: No usable answer in time.
    """

    def request() -> KeyAnswer:
        assert settings.bybit_api_key is not None
        assert settings.bybit_api_secret is not None
        http = _http(settings)
        http.api_key = settings.bybit_api_key.get_secret_value()
        http.api_secret = settings.bybit_api_secret.get_secret_value()
        result = http.get_api_key_information()["result"]
        days_left = None if result.get("ips", ["*"]) not in ([], ["*"]) else int(result["deadlineDay"])
        return KeyAnswer(int(result["readOnly"]) == 1, days_left)

    return await _call(request, settings, timeout_s)


def _http(settings: Settings) -> HTTP:
    http = HTTP(testnet=settings.bybit_testnet, timeout=_CONNECT_AND_READ_TIMEOUT_S, max_retries=1)
    http.endpoint = settings.bybit_rest_url
    return http


async def _call[Answer](request: Callable[[], Answer], settings: Settings, timeout_s: float) -> Answer:
    url = settings.bybit_rest_url
    try:
        async with asyncio.timeout(timeout_s):
            return await in_daemon_thread(request, name="probe")
    except TimeoutError as error:
        raise ProbeFailed(f"no answer from {url} within {timeout_s:g} s") from error
    except InvalidRequestError as error:
        refusal = KeyRefused if error.status_code in _KEY_CODES else ProbeFailed
        raise refusal(f"{url} answers {error.status_code}: {error.message}") from error
    except FailedRequestError as error:
        raise ProbeFailed(f"{url} answers {error.status_code}: {error.message}") from error
    except (RequestException, OSError) as error:
        raise ProbeFailed(f"{url} cannot be reached ({type(error).__name__})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ProbeFailed(f"{url} does not answer as Bybit does") from error


async def _authenticate(connection: ClientConnection, settings: Settings) -> None:
    assert settings.bybit_api_key is not None
    assert settings.bybit_api_secret is not None
    expires_ms = time.time_ns() // 1_000_000 + _AUTH_LIFETIME_MS
    signature = websocket_signature(settings.bybit_api_secret.get_secret_value(), expires_ms)
    arguments = [settings.bybit_api_key.get_secret_value(), expires_ms, signature]
    await connection.send(json.dumps({"op": "auth", "args": arguments}))
    reply = await _answer(connection, lambda reply: reply.get("op") == "auth")
    if not reply.get("success"):
        raise KeyRefused(f"Bybit refuses the login on a private line: {reply.get('ret_msg') or 'no reason given'}")


async def _answer(connection: ClientConnection, fits: Callable[[dict[str, object]], bool]) -> dict[str, object]:
    while True:
        reply = json.loads(await connection.recv())
        if isinstance(reply, dict) and fits(reply):
            return reply
