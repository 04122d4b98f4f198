"""Key gate: private lines open only with an accepted read-only key, which is checked periodically."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import structlog

from hedgelock_ingest.bybit.rest_client import RestClient
from hedgelock_ingest.clock import Clock, SystemClock
from hedgelock_ingest.errors import KeyRefused, RestError, RestRefused, RestUnavailable
from hedgelock_ingest.protocol.api_key_rules import KeyVerdict, judge_key, judge_undescribed_key
from hedgelock_ingest.protocol.rest_codes import KEY_CODES, NOT_IN_DEMO_TRADING

log = structlog.get_logger(__name__)


class KeyState(StrEnum):
    """State of the API key; `missing`: none is set; `unknown`: Bybit has not answered yet."""

    MISSING = "missing"
    UNKNOWN = "unknown"
    ACCEPTED = "accepted"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """Status of the key: the reason if it is not used, warnings, expiry."""

    state: KeyState
    reason: str | None = None
    warnings: list[str] = field(default_factory=list)
    expires_at: datetime | None = None


async def require_key(rest: RestClient, *, may_trade: bool) -> None:
    """
    Check once with Bybit that the key may be used.

    Raises:
        KeyRefused: It may not be used.
        RestUnavailable: Bybit did not report the key's permissions.
    """
    status = await KeyGate(rest, may_trade=may_trade, on_change=lambda is_accepted: None, clock=SystemClock()).check()
    if status.state is KeyState.REFUSED:
        raise KeyRefused(status.reason or "the API key is refused")
    if status.state is not KeyState.ACCEPTED:
        raise RestUnavailable(status.reason or "Bybit did not report the API key's permissions")


class KeyGate:
    """
    Checks our key with Bybit, periodically.

    `on_change` is called with whether the key is accepted, whenever that changes. An accepted key stays accepted while
    Bybit cannot be reached.
    """

    def __init__(
        self,
        rest: RestClient,
        *,
        may_trade: bool,
        on_change: Callable[[bool], None],
        clock: Clock,
        watch_interval_s: float = 60.0,
        retry_interval_s: float = 5.0,
    ) -> None:
        """
        Prepare.

        Args:
            rest: Client of Bybit's REST.
            may_trade: `BYBIT_ALLOW_TRADING_KEY`.
            on_change: Called with whether the key is accepted.
            clock: Used for waits.
            watch_interval_s: Between two checks.
            retry_interval_s: Between two checks while the key is unknown.
        """
        self._clock = clock
        self.status = KeyStatus(KeyState.UNKNOWN if rest.has_key else KeyState.MISSING)
        self._rest = rest
        self._may_trade = may_trade
        self._on_change = on_change
        self._watch_interval_s = watch_interval_s
        self._retry_interval_s = retry_interval_s

    @property
    def is_open(self) -> bool:
        """Whether the key is accepted."""
        return self.status.state is KeyState.ACCEPTED

    async def check(self) -> KeyStatus:
        """Check once, and return the new status."""
        before = self.status
        self.status = await self._request_status()
        self._log_change(before)
        if self.is_open != (before.state is KeyState.ACCEPTED):
            self._on_change(self.is_open)
        return self.status

    async def watch(self) -> None:
        """Check periodically, until cancelled."""
        while self._rest.has_key:
            is_known = self.status.state is not KeyState.UNKNOWN
            await self._clock.sleep(self._watch_interval_s if is_known else self._retry_interval_s)
            await self.check()

    async def _request_status(self) -> KeyStatus:
        try:
            information = await self._rest.key_information()
        except RestError as error:
            if isinstance(error, RestRefused) and error.code in KEY_CODES:
                return KeyStatus(KeyState.REFUSED, str(error))
            if isinstance(error, RestRefused) and error.code == NOT_IN_DEMO_TRADING:
                return _status(judge_undescribed_key(may_trade=self._may_trade))
            if self.status.state is KeyState.UNKNOWN:
                return KeyStatus(KeyState.UNKNOWN, f"Bybit did not report the API key's permissions: {error}")
            return self.status
        return _status(judge_key(information, now_ms=self._rest.now_ms(), may_trade=self._may_trade))

    def _log_change(self, before: KeyStatus) -> None:
        now = self.status
        if now.state is not before.state or (now.state is KeyState.UNKNOWN and before.reason is None):
            match now.state:
                case KeyState.ACCEPTED:
                    log.info("api_key_accepted", expires_at=now.expires_at)
                case KeyState.REFUSED:
                    log.error("api_key_refused", reason=now.reason)
                case _:
                    log.warning("api_key_unknown", reason=now.reason)
        for warning in now.warnings:
            if warning not in before.warnings:
                log.warning("api_key_warning", warning=warning)


def _status(verdict: KeyVerdict) -> KeyStatus:
    state = KeyState.ACCEPTED if verdict.refusal is None else KeyState.REFUSED
    return KeyStatus(state, verdict.refusal, verdict.warnings, verdict.expires_at)
