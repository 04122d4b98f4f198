"""Lag of signed answers behind the stream."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hedgelock_ingest.sandbox.exchange.account.past import AccountPast
from hedgelock_ingest.sandbox.exchange.account.state import AccountState
from hedgelock_ingest.sandbox.exchange.clock import ExchangeClock

type AnswerTime = Literal["then", "now"]


@dataclass(frozen=True, slots=True)
class RestLag:
    """Paths whose answers show the account as it stood `lag_ms` ago, with the `time` of then or of now."""

    path: str
    lag_ms: int
    time: AnswerTime


class Replica:
    """The account as REST reads it: the current state, or an earlier one on the paths that lag."""

    def __init__(self, account: AccountState, past: AccountPast, clock: ExchangeClock, lags: Sequence[RestLag]) -> None:
        self._account = account
        self._past = past
        self._clock = clock
        self._lags = lags

    def read(self, path: str) -> tuple[AccountState, int]:
        """Return the state that a path answers from, and the time of the answer; the newest lag of a path counts."""
        now_ms = self._clock.now_ms()
        lag = next((one for one in reversed(self._lags) if path.startswith(one.path)), None)
        if lag is None or not lag.lag_ms:
            return self._account, now_ms
        then_ms = now_ms - lag.lag_ms
        return self._past.state_at(then_ms), then_ms if lag.time == "then" else now_ms
