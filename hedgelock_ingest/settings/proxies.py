"""
Proxies of the environment, and which one applies to an address.

All programs share these variables, so they are read as other programs read them: in lower case first, then in upper
case. One rule serves REST and both WebSocket clients, whose libraries would each read them differently.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import quote, unquote, urlsplit

_PORT_BY_SCHEME = {"http": 80, "https": 443, "socks4": 1080, "socks4a": 1080, "socks5": 1080, "socks5h": 1080}
_PORT_OF_TARGET = {"http": 80, "ws": 80, "https": 443, "wss": 443}
_EXPECTED = "expected SCHEME://[USER:PASSWORD@]HOST[:PORT], with one of the schemes " + ", ".join(_PORT_BY_SCHEME)


@dataclass(frozen=True, slots=True, repr=False)
class Proxy:
    """A proxy, and the variable of the environment that names it; its text has no user and no password."""

    variable: str
    scheme: str
    host: str
    port: int
    username: str = ""
    password: str = ""

    def __str__(self) -> str:
        return f"{self._address} ({self.variable})"

    __repr__ = __str__

    @property
    def has_credentials(self) -> bool:
        """Whether the variable holds a user or a password."""
        return bool(self.username or self.password)

    @property
    def url(self) -> str:
        """The address for a library, with user and password: a secret."""
        credentials = (
            f"{quote(self.username, safe='')}:{quote(self.password, safe='')}@" if self.has_credentials else ""
        )
        return f"{self.scheme}://{credentials}{self._address}"

    @property
    def _address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be shown: the password, also as the header of a request contains it."""
        return (self.password, f"{self.username}:{self.password}") if self.password else ()


def proxy_for(url: str, environ: Mapping[str, str]) -> Proxy | None:
    """
    Return the proxy for an address, or None if it is reached directly.

    A loopback address is reached directly: a proxy on the way would not reach a simulated exchange on this machine.

    Raises:
        ValueError: The variable that applies has no address of a proxy; the message names it, without its value.
    """
    target = urlsplit(url)
    host = (target.hostname or "").rstrip(".")
    if _is_loopback(host) or _is_exempt(host, target.port or _PORT_OF_TARGET[target.scheme], environ):
        return None
    for name in ("HTTPS_PROXY" if target.scheme in {"https", "wss"} else "HTTP_PROXY", "ALL_PROXY"):
        variable = name.lower() if name.lower() in environ else name
        value = environ.get(variable, "").strip()
        if value:
            return _parsed(variable, value)
    return None


def is_any_set(environ: Mapping[str, str]) -> bool:
    """Return whether the environment names a proxy."""
    return any(
        environ.get(each) for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY") for each in (name, name.lower())
    )


def no_proxy(environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the name of the variable with the hosts that are reached directly, and its value."""
    name = "no_proxy" if "no_proxy" in environ else "NO_PROXY"
    return name, environ.get(name, "")


def _parsed(variable: str, value: str) -> Proxy:
    try:
        value.encode()  # Python keeps other bytes of the environment as surrogates
        found = urlsplit(value if "://" in value else f"http://{value}")
        username, password = (unquote(each or "", errors="strict") for each in (found.username, found.password))
        port = found.port
    except ValueError:
        raise ValueError(f"{variable} (environment): it holds no address of a proxy; {_EXPECTED}") from None
    if found.scheme not in _PORT_BY_SCHEME:
        raise ValueError(f"{variable} (environment): it has a scheme that is not known; {_EXPECTED}")
    if not found.hostname or port == 0 or re.search(r"\s", value):
        raise ValueError(f"{variable} (environment): it holds no address of a proxy; {_EXPECTED}")
    if found.path not in {"", "/"} or found.query or found.fragment:
        raise ValueError(
            f"{variable} (environment): it has text after the port; {_EXPECTED}; in a user and a password "
            "write / ? # @ : as %2F %3F %23 %40 %3A"
        )
    return Proxy(variable, found.scheme, found.hostname, port or _PORT_BY_SCHEME[found.scheme], username, password)


def _is_exempt(host: str, port: int, environ: Mapping[str, str]) -> bool:
    entries = no_proxy(environ)[1].lower()
    return any(_matches(entry, host, port) for entry in re.split(r"[,\s]+", entries) if entry)


def _matches(entry: str, host: str, port: int) -> bool:
    """Compare a host with one entry: `*`, an address, a network, or a domain with its subdomains, maybe with a port."""
    if entry == "*":
        return True
    address = _address(host)
    try:
        network = ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        pass
    else:
        return address is not None and address in network
    name, colon, number = entry.rpartition(":")
    if colon and number.isdecimal():
        if int(number) != port:
            return False
        entry = name
    domain = entry.strip("[]").removeprefix("*").strip(".")
    return bool(domain) and (host == domain or (address is None and host.endswith(f".{domain}")))


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
