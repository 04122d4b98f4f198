"""Alerts to a webhook: trouble of a shard of the stream, and its end."""

import json
import os
import threading
from http.client import HTTPException
from urllib.request import ProxyHandler, Request, build_opener

import structlog

from hedgelock_ingest.settings.proxies import proxy_for

log = structlog.get_logger(__name__)

_SOCKET_TIMEOUT_S = 2.0
_MAX_WAIT_S = 3.0


def post(url: str, text: str) -> bool:
    """
    Post `{"text": ...}`, which chats and most alert managers accept; return whether it was accepted.

    Waits three seconds at most, including name resolution, which no socket timeout covers: a sensor that blocks stops
    the daemon's heartbeat.
    """
    accepted: list[bool] = []
    sender = threading.Thread(target=lambda: accepted.append(_post(url, text)), name="alert", daemon=True)
    sender.start()
    sender.join(_MAX_WAIT_S)
    return accepted == [True]


def _post(url: str, text: str) -> bool:
    body = json.dumps({"text": text}).encode()
    request = Request(url, body, {"Content-Type": "application/json"})  # noqa: S310  # the settings accept only http(s)
    try:
        # None are the proxies of the environment.
        opener = build_opener(ProxyHandler({} if proxy_for(url, os.environ) is None else None))
        with opener.open(request, timeout=_SOCKET_TIMEOUT_S) as answer:
            answer.read(1)
        return True
    except (OSError, ValueError, HTTPException) as error:
        # Not the message: it may contain the address, which is all that posting needs.
        log.warning("alert_not_accepted", cause=type(error).__name__)
        return False
