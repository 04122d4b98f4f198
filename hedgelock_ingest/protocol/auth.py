"""Authentication of a private WebSocket."""

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
