"""The API keys of the simulated account: a good one, and one for each problem that a key can have."""

import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

USER_ID = 100000001
_DAY_MS = 86_400_000
_READ_AREAS = {
    "ContractTrade": ["Order", "Position"],
    "Spot": ["SpotTrade"],
    "Wallet": [],
    "Options": [],
    "Derivatives": ["DerivativesTrade"],
    "CopyTrading": [],
    "BlockTrade": [],
    "Exchange": [],
    "NFT": [],
    "Affiliate": [],
    "Earn": [],
    "FiatP2P": [],
    "FiatConvertBroker": [],
    "FiatGlobalPay": [],
    "FiatBitPay": [],
    "BitCard": [],
    "ByXPost": [],
}


@dataclass(frozen=True, slots=True)
class ApiKey:
    """
    One key; all belong to the same account.

    `days_left` counts from the start of the exchange. A key bound to addresses does not expire. A demo key opens
    private lines, but cannot describe itself and has no loans. Source: Bybit V5, Demo Trading Service.
    """

    name: str
    is_read_only: bool = True
    has_spot: bool = True
    may_withdraw: bool = False
    ips: tuple[str, ...] = ()
    days_left: int = 85
    is_demo: bool = False

    @property
    def api_key(self) -> str:
        """The public half, 18 characters as Bybit's."""
        return _digits(f"{self.name}:key")[:18]

    @property
    def api_secret(self) -> str:
        """The secret half; it belongs to a simulated account, so it may be printed."""
        return _digits(f"{self.name}:secret")[:36]

    def signature(self, signed: str) -> str:
        """Sign a text as Bybit requires."""
        return hmac.new(self.api_secret.encode(), signed.encode(), hashlib.sha256).hexdigest()

    def signs(self, signed: str, signature: str) -> bool:
        """Return whether a signature is right."""
        return hmac.compare_digest(self.signature(signed).encode(), signature.encode())

    def accepts(self, address: str | None) -> bool:
        """Return whether requests from an address may use this key."""
        return not self.ips or address in self.ips

    def has_expired(self, started_ms: int, now_ms: int) -> bool:
        """Return whether the key's days are over."""
        return not self.ips and now_ms >= started_ms + self.days_left * _DAY_MS

    def row(self, started_ms: int, now_ms: int) -> dict[str, Any]:
        """Describe the key as `/v5/user/query-api` does."""
        begin = datetime.fromtimestamp(started_ms / 1000, UTC)
        areas = {name: list(rights) for name, rights in _READ_AREAS.items()}
        if not self.has_spot:
            areas["Spot"] = []
        if self.may_withdraw:
            areas["Wallet"] = ["AccountTransfer", "Withdraw"]
        deadline_ms = started_ms + self.days_left * _DAY_MS
        return {
            "id": str(int(_digits(self.name)[:6], 16)),
            "note": self.name,
            "apiKey": self.api_key,
            "readOnly": int(self.is_read_only),
            "secret": "",
            "permissions": areas,
            "ips": list(self.ips) or ["*"],
            "type": 1,
            "deadlineDay": -2 if self.ips else -(-(deadline_ms - now_ms) // _DAY_MS),
            "expiredAt": "1970-01-01T00:00:00Z" if self.ips else _day(begin + timedelta(days=self.days_left)),
            "createdAt": _day(begin + timedelta(days=self.days_left - 90)),
            "unified": 0,
            "uta": 1,
            "userID": USER_ID,
            "inviterID": 0,
            "vipLevel": "No VIP",
            "mktMakerLevel": "0",
            "affiliateID": 0,
            "rsaPublicKey": "",
            "isMaster": True,
            "parentUid": "0",
            "kycLevel": "LEVEL_1",
            "kycRegion": "MYS",
            "userIDInt64": "0",
            "inviterIDInt64": "0",
            "affiliateIDInt64": "0",
        }


KEYS = {
    key.name: key
    for key in (
        ApiKey("read-only"),
        ApiKey("trading", is_read_only=False, may_withdraw=True),
        ApiKey("expired", days_left=-1),
        ApiKey("ip-bound", ips=("203.0.113.7",)),
        ApiKey("no-spot", has_spot=False),
        ApiKey("expiring", days_left=3),
        ApiKey("demo", is_read_only=False, is_demo=True),
    )
}


def find_key(api_key: str) -> ApiKey | None:
    """Return the key with this public half."""
    return next((key for key in KEYS.values() if key.api_key == api_key), None)


def _digits(name: str) -> str:
    return hashlib.sha256(f"simulated exchange:{name}".encode()).hexdigest()


def _day(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
