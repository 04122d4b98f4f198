"""Authentication of a private WebSocket, and the estimate of Bybit's clock that it needs."""

import hashlib
import hmac

AUTHENTICATION_LIFETIME_MS = 8_000
"""Validity of a signature: enough for a slow network, and for clocks that differ by seconds."""


def websocket_signature(secret: str, expires_ms: int) -> str:
    """
    Sign the authentication of a WebSocket with an HMAC key, as lower-case hex.

    Args:
        secret: The secret of the key.
        expires_ms: Must lie ahead of Bybit's clock on arrival; 5 to 10 s tolerate a clock that differs.

    Source: Bybit V5, Connect, "Authentication".
    """
    return hmac.new(secret.encode(), f"GET/realtime{expires_ms}".encode(), hashlib.sha256).hexdigest()


def websocket_authentication(key: str, secret: str, now_ms: int) -> list[str | int]:
    """
    Return the arguments of `auth`: key, expiry, signature.

    Args:
        key: The API key.
        secret: Its secret.
        now_ms: Bybit's clock.
    """
    expires_ms = now_ms + AUTHENTICATION_LIFETIME_MS
    return [key, expires_ms, websocket_signature(secret, expires_ms)]


class ServerClock:
    """
    Tracks Bybit's clock with a monotonic clock of ours, so that a step of this machine's wall clock has no effect.

    `monotonic_s` is that clock in seconds. A measurement is valid for `valid_s`: clocks drift by milliseconds in five
    minutes.
    """

    def __init__(self, *, valid_s: float = 300.0) -> None:
        self._valid_s = valid_s
        self._server_ms = 0.0
        self._measured_s: float | None = None

    def measured(self, server_ms: float, *, sent_s: float, received_s: float) -> None:
        """Record a time answer; on average Bybit takes the time halfway between request and arrival."""
        self._server_ms = server_ms
        self._measured_s = (sent_s + received_s) / 2

    def forget(self) -> None:
        """Discard the measurement, so that the clock is measured again before use."""
        self._measured_s = None

    def is_known(self, monotonic_s: float) -> bool:
        """Return whether there is a valid measurement."""
        return self._measured_s is not None and monotonic_s - self._measured_s < self._valid_s

    def now_ms(self, monotonic_s: float, wall_ms: int) -> int:
        """Return Bybit's time in milliseconds; this machine's if nothing was measured."""
        if self._measured_s is None:
            return wall_ms
        return int(self._server_ms + (monotonic_s - self._measured_s) * 1000)
