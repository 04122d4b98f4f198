"""Faults of REST answers."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from hedgelock_ingest.errors import SandboxError
from hedgelock_ingest.sandbox.exchange.clock import ExchangeClock
from hedgelock_ingest.sandbox.exchange.rest.access_control import late_text
from hedgelock_ingest.sandbox.exchange.rest.envelope import enveloped

KINDS = ("status", "html", "truncated", "silence", "forbidden", "ret_code")
_HTML = "<html><head><title>{title}</title></head><body><center><h1>{title}</h1></center></body></html>"
_TEXTS = {
    10006: "Too many visits. Exceeded the API Rate Limit.",
    10016: "Server error.",
    10032: "Demo trading are not supported.",
}


@dataclass(slots=True)
class RestFault:
    """One fault of REST: the paths it affects, and how many more times; None is without limit."""

    kind: str
    path: str
    count: int | None
    status: int
    seconds: float
    ret_code: int

    def strikes(self, path: str) -> bool:
        """Return whether the fault affects a request, and count it."""
        if not path.startswith(self.path) or self.count == 0:
            return False
        if self.count is not None:
            self.count -= 1
        return True

    async def answer(
        self, good: Callable[[], Awaitable[web.StreamResponse]], clock: ExchangeClock
    ) -> web.StreamResponse:
        """Answer with the fault; `good` makes the correct answer."""
        match self.kind:
            case "status":
                return web.Response(status=self.status, text="")
            case "html":
                return _html(self.status, "Just a moment...")
            case "forbidden":
                return forbidden()
            case "silence":
                await asyncio.sleep(self.seconds)
                return await good()
            case "truncated":
                return _truncated(await good())
            case "ret_code":
                return self._refusal(clock.now_ms())
        raise SandboxError(f"no fault of REST is of kind {self.kind!r}")

    def _refusal(self, now_ms: int) -> web.Response:
        late = late_text(str(now_ms - 60_000), now_ms, "5000") if self.ret_code == 10002 else "Request failed."
        answer = enveloped({}, now_ms, ret_code=self.ret_code, ret_msg=_TEXTS.get(self.ret_code, late))
        if self.ret_code == 10006:
            answer.headers.update(
                {
                    "X-Bapi-Limit": "5",
                    "X-Bapi-Limit-Status": "0",
                    "X-Bapi-Limit-Reset-Timestamp": str(now_ms + int(self.seconds * 1000) + 1_000),
                }
            )
        return answer


def forbidden() -> web.Response:
    """Return the answer of Bybit's front to an address with too many requests. Source: Bybit V5, Rate limit."""
    return _html(403, "403 Forbidden: access too frequent")


def _html(status: int, title: str) -> web.Response:
    return web.Response(status=status, text=_HTML.format(title=title), content_type="text/html")


def _truncated(good: web.StreamResponse) -> web.StreamResponse:
    if not isinstance(good, web.Response) or not isinstance(good.body, bytes):
        return good
    return web.Response(
        status=good.status, body=good.body[: len(good.body) // 2], content_type="application/json", charset="utf-8"
    )
