"""The signature that opens a private WebSocket."""

import hashlib
import hmac


def websocket_signature(secret: str, expires_ms: int) -> str:
    """
    Sign the authentication of a WebSocket with an HMAC key, as lower-case hex.

    Args:
        secret: The secret of the key.
        expires_ms: Bybit's clock must not have reached this on arrival; 5 to 10 s ahead bears a clock that differs.

    Source: Bybit V5, Connect, "Authentication".
    """
    return hmac.new(secret.encode(), f"GET/realtime{expires_ms}".encode(), hashlib.sha256).hexdigest()
