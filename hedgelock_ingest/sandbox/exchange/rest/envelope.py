"""Bybit's envelope around every REST answer."""

import json
from typing import Any

from aiohttp import web

PARAMETER_ERROR = 10001


class RequestRefused(Exception):
    """A request that is answered with a `retCode` other than 0."""

    def __init__(self, ret_code: int, ret_msg: str) -> None:
        super().__init__(ret_msg)
        self.ret_code = ret_code
        self.ret_msg = ret_msg


def enveloped(
    result: dict[str, Any], now_ms: int, *, ret_code: int = 0, ret_msg: str = "OK", is_bare: bool = False
) -> web.Response:
    """
    Put a result into Bybit's envelope; a bare one lacks `retExtInfo` and `time`, as `/v5/account/info` does.

    Source: Bybit V5, Integration guidance, "Common response parameters".
    """
    body: dict[str, Any] = {"retCode": ret_code, "retMsg": ret_msg, "result": result}
    if not is_bare:
        body |= {"retExtInfo": {}, "time": now_ms}
    return web.json_response(body, dumps=compact)


def compact(value: Any) -> str:
    """Write JSON without spaces."""
    return json.dumps(value, separators=(",", ":"))
