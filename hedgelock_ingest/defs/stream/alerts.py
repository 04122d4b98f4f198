"""Tells a webhook when a shard of the stream gets into trouble, and when it is well again."""

import json
import logging
import threading
from http.client import HTTPException
from urllib.request import Request, urlopen

log = logging.getLogger(__name__)

_TIMEOUT_S = 2.0
_LONGEST_WAIT_S = 3.0


def post(url: str, text: str) -> bool:
    """
    Post `{"text": ...}`, which chats and most alert managers take; say whether it was accepted.

    Waits three seconds at most, also where a name is not resolved, which no time-out of a socket covers: a sensor
    that blocks stops the daemon's heartbeat.
    """
    accepted: list[bool] = []
    sender = threading.Thread(target=lambda: accepted.append(_post(url, text)), name="alert", daemon=True)
    sender.start()
    sender.join(_LONGEST_WAIT_S)
    return accepted == [True]


def _post(url: str, text: str) -> bool:
    body = json.dumps({"text": text}).encode()
    request = Request(url, body, {"Content-Type": "application/json"})  # noqa: S310  # the settings take http(s) alone
    try:
        with urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
            answer.read(1)
        return True
    except (OSError, ValueError, HTTPException) as error:
        # Not the message: it may hold the address, and whoever knows that can post.
        log.warning("alert_not_accepted cause=%s", type(error).__name__)
        return False
