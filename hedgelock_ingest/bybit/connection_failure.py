"""
The meaning of a failure to reach Bybit: what answered, what did not, and which side to change.

One home for lines with either client, for REST and for the probes of `check`, so that all of them report a failure in
the same words. Texts have no credentials, no path and no content of an answer: they are logged and shown.
"""

import errno
import os
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from typing import NamedTuple
from urllib.parse import urlsplit

import requests
import websocket
from urllib3.exceptions import LocationParseError
from websockets.exceptions import InvalidHeader, InvalidMessage, InvalidProxyStatus, InvalidStatus

from hedgelock_ingest.protocol.frames import Category
from hedgelock_ingest.settings.proxies import Proxy

_TUNNEL_STATUS = re.compile(r"(?:Tunnel connection failed|CONNECT via proxy status): (\d{3})")
_SHOWN = re.compile(r"[^\w ./:()\[\]-]+")
_MAX_SHOWN_CHARACTERS = 80
_BROKEN_ANSWERS = (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError)

# Codes of OpenSSL, <openssl/x509_vfy.h>.
_NOT_YET_VALID, _EXPIRED = 9, 10
_OTHER_NAMES = {62, 64}
_NO_TLS = {
    "WRONG_VERSION_NUMBER",
    "RECORD_LAYER_FAILURE",
    "HTTP_REQUEST",
    "UNSUPPORTED_PROTOCOL",
    "PACKET_LENGTH_TOO_LONG",
}


class Failure(NamedTuple):
    """A cause from a small fixed set, and a text for the operator that ends with the action."""

    cause: str
    text: str


class Answer(NamedTuple):
    """An HTTP answer in place of one of Bybit's."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def is_page(self) -> bool:
        """Whether it is a web page."""
        return "html" in self._header("content-type") or self.body.lstrip()[:1] == b"<"

    @property
    def is_foreign(self) -> bool:
        """Whether it is of another server than Bybit's: a web page, or a request to log in."""
        return self.is_page or bool(self._header("www-authenticate"))

    def _header(self, name: str) -> str:
        return next((value for each, value in self.headers.items() if each.lower() == name), "")


class Target:
    """The address of Bybit that a connection was to reach, and the proxy on the way."""

    def __init__(self, url: str, proxy: Proxy | None) -> None:
        """Take the address apart; `proxy` is None for a direct connection."""
        parts = urlsplit(url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        self.proxy = proxy
        self._is_tls = parts.scheme in {"https", "wss"}
        self._is_rest = parts.scheme in {"http", "https"}
        self._host = str(host)
        self._address = f"{host}:{parts.port or (443 if self._is_tls else 80)}"
        self._setting = _setting_of(parts.scheme, parts.path)

    def failure(self, error: BaseException, *, is_connected: bool = False) -> Failure:
        """
        Explain why no connection was opened.

        Args:
            error: What the library raised; its causes are read, too.
            is_connected: Whether the connection below WebSocket or HTTP was open, TLS included.
        """
        errors = list(_chain(error))
        if any(isinstance(each, _BROKEN_ANSWERS) for each in errors):
            return Failure("connect_failed", self._broken_answer_text())
        if self.proxy is not None and not is_connected:
            found = self._proxy_failure(self.proxy, errors)
            if found is not None:
                return found
        known = (self._known(each, errors, is_connected) for each in reversed(errors))
        return next(filter(None, known), None) or self._unknown(errors)

    def answer(self, answer: Answer) -> Failure:
        """Explain an HTTP answer that is not one of Bybit's."""
        status, headers = answer.status, {name.lower(): value for name, value in answer.headers.items()}
        server = _shown(headers.get("server", ""))
        details = ", ".join(["a web page"] * answer.is_page + [f"server {server}"] * bool(server))
        found = f"{self._address} answers HTTP {status}{f' ({details})' if details else ''}{self._way}"
        return Failure("connect_rejected", f"{found}; {self._action_on(status, headers, is_foreign=answer.is_foreign)}")

    def _action_on(self, status: int, headers: Mapping[str, str], *, is_foreign: bool) -> str:
        if 300 <= status < 400:
            return (
                f"it redirects to {_host_of(headers.get('location', ''))}: a log-in page of the network, or not "
                f"Bybit's address; log in there, or correct {self._setting}"
            )
        if status == 403 and ("cloudfront" in headers.get("server", "").lower() or "x-amz-cf-id" in headers):
            return (
                "Bybit's CDN refuses this IP address: a country that Bybit does not serve, or too many requests; run "
                f"it elsewhere, or set {self._setting} to Bybit's host of your region"
            )
        if status == 403:
            return (
                "Bybit blocks this IP address (too many requests, or a country that it does not serve), or a filter of "
                f"your network answers in its place: allow {self._host} there"
            )
        if status == 407 and self.proxy is not None:
            return _credentials_action(self.proxy)
        if status == 451:
            return (
                f"Bybit, or a filter of your network, refuses it for legal reasons: allow {self._host} there, or "
                "run it elsewhere"
            )
        if status == 429:
            return "too many requests from this IP address; it is tried again, more slowly"
        if status == 511:  # RFC 6585, 6
            return f"the network requires a log-in: log in there, or allow {self._host} there"
        if status >= 500:
            return "Bybit, or a server on the way to it, is out of order; it is tried again"
        if status == 400 and not self._is_tls:
            return f"it may expect TLS: use {'https' if self._is_rest else 'wss'}:// in {self._setting}"
        if status == 404:
            return f"it has no such path: correct {self._setting}"
        if status == 400 and self._is_rest and not is_foreign:
            return f"it does not accept the request: correct {self._setting}, or check what changes requests on the way"
        expected = "JSON" if self._is_rest else "a WebSocket"
        if is_foreign:
            return (
                f"expected {expected}: a log-in page of the network, or another server; log in there, or correct "
                f"{self._setting}"
            )
        return f"expected {expected}, complete and Bybit's; it is tried again; if that stays, correct {self._setting}"

    @property
    def _way(self) -> str:
        return "" if self.proxy is None else f" through the proxy {self.proxy}"

    def _known(self, error: BaseException, errors: list[BaseException], is_connected: bool) -> Failure | None:
        match error:
            case InvalidStatus():
                response = error.response
                return self.answer(
                    Answer(response.status_code, dict(response.headers.raw_items()), bytes(response.body or b""))
                )
            case websocket.WebSocketBadStatusException():
                return self.answer(Answer(error.status_code, error.resp_headers or {}, error.resp_body or b""))
            case InvalidHeader():
                return self.answer(Answer(101, {}))
            case websocket.WebSocketException() if "Invalid WebSocket Header" in str(error):
                return self.answer(Answer(101, {}))
            case websocket.WebSocketException() if "edirect" in str(error):
                return self.answer(Answer(302, {}))
            case ssl.SSLCertVerificationError():
                return Failure("connect_tls", self._certificate_text(getattr(error, "verify_code", 0)))
            case ssl.SSLError() if not isinstance(error, ssl.SSLEOFError):
                return Failure("connect_tls", self._tls_text(str(getattr(error, "reason", None))))
            case socket.gaierror():
                return Failure(
                    "connect_unresolved",
                    f"the name {self._host} does not resolve ({error.strerror}); check this machine's DNS, or correct "
                    f"{self._setting}",
                )
            case UnicodeError() | LocationParseError() if not isinstance(error, UnicodeDecodeError):
                text = f"{_shown(self._host)} cannot be the name of a host; correct {self._setting}"
                return Failure("connect_unresolved", text)
            case _ if _is_timeout(error):
                return Failure("connect_timeout", self._timeout_text(errors, is_connected))
            case OSError() if _errno(error) == errno.ECONNREFUSED:
                return Failure(
                    "connect_refused",
                    f"{self._address} refuses connections: nothing listens there, or a firewall rejects it; allow "
                    f"outgoing connections to it, or correct {self._setting}",
                )
            case ConnectionError() | EOFError() | ssl.SSLEOFError() | HTTPException() | InvalidMessage():
                return Failure("connect_failed", self._no_http_text(errors, is_connected))
            case websocket.WebSocketException() if not isinstance(error, websocket.WebSocketAddressException):
                return Failure("connect_failed", self._no_http_text(errors, is_connected))
            case OSError() if error.errno in {
                errno.ENETUNREACH,
                errno.EHOSTUNREACH,
                errno.ENETDOWN,
                errno.EADDRNOTAVAIL,
            }:
                return Failure(
                    "connect_failed",
                    f"there is no way to {self._address} ({error.strerror}); check this machine's network, or correct "
                    f"{self._setting}",
                )
        return None

    def _broken_answer_text(self) -> str:
        return (
            f"{self._address} answers in HTTP{self._way}, but its answer is cut off or damaged; it is tried again; if "
            f"that stays, check what changes answers on the way, or correct {self._setting}"
        )

    def _unknown(self, errors: list[BaseException]) -> Failure:
        reason = _reason(errors[-1])
        text = (
            f"no connection to {self._address}{self._way} ({reason}); check the way to it, or correct {self._setting}"
        )
        return Failure("connect_failed", text)

    def _certificate_text(self, code: int) -> str:
        found = f"{self._address} answers with a certificate"
        if code in {_EXPIRED, _NOT_YET_VALID}:
            when = "has expired" if code == _EXPIRED else "is not valid yet"
            return (
                f"{found} that {when}{self._way}; check this machine's clock, and {self._setting}; if both are right, "
                "the server, or what intercepts the connection, needs a new one"
            )
        if code in _OTHER_NAMES:
            return (
                f"{found} of another host{self._way}; correct {self._setting}, or remove what intercepts the "
                "connection: a log-in page or a filter of the network"
            )
        return (
            f"{found} that no known authority has signed{self._way}; if your network intercepts TLS, add its authority "
            f"to the file that SSL_CERT_FILE names; else correct {self._setting}"
        )

    def _tls_text(self, reason: str) -> str:
        plain = "http" if self._is_rest else "ws"
        if reason in _NO_TLS:
            return (
                f"{self._address} answers, but not in TLS{self._way}; correct the port, or use {plain}:// in "
                f"{self._setting} if it is a simulated exchange"
            )
        return (
            f"{self._address} and this machine agree on no TLS{self._way} ({_shown(reason)}); check "
            f"{self._setting}, and what intercepts TLS on the way"
        )

    def _timeout_text(self, errors: list[BaseException], is_connected: bool) -> str:
        if any(_is_tls_timeout(each) for each in errors):
            return (
                f"{self._address} accepts connections, but does not answer in TLS{self._way} in time; correct the port "
                f"in {self._setting}, or check what filters TLS on the way"
            )
        if is_connected or isinstance(errors[0], requests.ReadTimeout | websocket.WebSocketTimeoutException):
            what = "HTTP requests" if self._is_rest else "the request for a WebSocket"
            return (
                f"{self._address} accepts connections, but does not answer {what}{self._way} in time; Bybit is out of "
                f"order, or another program listens there: correct {self._setting}"
            )
        return (
            f"{self._address} does not answer: no connection in time; allow outgoing connections to it in the "
            f"firewall, or correct {self._setting}"
        )

    def _no_http_text(self, errors: list[BaseException], is_connected: bool) -> str:
        if any(_is_tls_timeout(each) for each in errors):
            return self._timeout_text(errors, is_connected)
        after_tls = HTTPException | InvalidMessage | websocket.WebSocketException
        if self._is_tls and not is_connected and not any(isinstance(each, after_tls) for each in errors):
            return (
                f"{self._address} accepts connections, and closes them in the TLS handshake{self._way}; correct "
                f"the port in {self._setting}, or check what filters TLS on the way"
            )
        secure = "https" if self._is_rest else "wss"
        hint = "" if self._is_tls else f"; if it expects TLS, use {secure}:// in {self._setting}"
        return (
            f"{self._address} accepts connections, but does not answer in HTTP{self._way}: another program listens "
            f"there, or something on the way closes the connection; correct the port in {self._setting}{hint}"
        )

    def _proxy_failure(self, proxy: Proxy, errors: list[BaseException]) -> Failure | None:
        """Explain why the proxy opened no connection; None if it did."""
        status = next(filter(None, map(_tunnel_status, errors)), None)
        if status is not None:
            action = f"allow {self._address} there, or exempt {self._host} by NO_PROXY"
            if status == 407:
                action = _credentials_action(proxy)
            return _proxy_failed(f"the proxy {proxy} answers HTTP {status} to CONNECT {self._address}; {action}")
        beyond = (InvalidStatus, websocket.WebSocketBadStatusException, ssl.SSLError, requests.ReadTimeout)
        if any(isinstance(each, beyond) for each in errors):
            return None
        last = errors[-1]
        reason = _reason(last)
        if "auth" in reason.lower():
            return _proxy_failed(f"the proxy {proxy} refuses the log-in ({reason}); {_credentials_action(proxy)}")
        if isinstance(last, socket.gaierror):
            name = "a name" if proxy.scheme in {"socks4", "socks5"} else f"the name {proxy.host}"
            return _proxy_failed(
                f"{name} does not resolve ({last.strerror}) on the way through the proxy {proxy}; correct "
                f"{proxy.variable}, or let the proxy resolve names by socks5h://"
            )
        if isinstance(last, OSError) and (_errno(last) is not None) and not _is_timeout(last):
            return _proxy_failed(
                f"the proxy {proxy} cannot be reached ({reason}); start it, correct {proxy.variable}, or exempt "
                f"{self._host} by NO_PROXY"
            )
        if any(map(_is_timeout, errors)):
            return _proxy_failed(
                f"the proxy {proxy} opens no connection to {self._address} in time: it does not answer, or cannot "
                f"reach it; check it, correct {proxy.variable}, or exempt {self._host} by NO_PROXY"
            )
        return _proxy_failed(
            f"the proxy {proxy} opens no connection to {self._address} ({reason}); allow it there, correct "
            f"{proxy.variable}, or exempt {self._host} by NO_PROXY"
        )


def _host_of(location: str) -> str:
    """Return the host of a redirect; the rest may hold what only its user may know."""
    try:
        return _shown(urlsplit(location).hostname or "") or "another page"
    except ValueError:
        return "another page"


def _setting_of(scheme: str, path: str) -> str:
    if scheme in {"http", "https"}:
        return "BYBIT_REST_URL"
    is_public = path.rpartition("/")[2] in {str(each) for each in Category}
    return "BYBIT_PUBLIC_WS_URL" if is_public else "BYBIT_PRIVATE_WS_URL"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes, the first cause last."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        inner = current.exceptions[0] if isinstance(current, BaseExceptionGroup) else None
        current = inner or current.__cause__ or current.__context__


def _is_timeout(error: BaseException) -> bool:
    kinds = TimeoutError | requests.Timeout | websocket.WebSocketTimeoutException
    return isinstance(error, kinds) or _is_tls_timeout(error)


def _is_tls_timeout(error: BaseException) -> bool:
    # The texts of Python's ssl, and of the event loop.
    return "handshake operation timed out" in str(error) or "SSL handshake is taking longer" in str(error)


def _errno(error: OSError) -> int | None:
    """Return the number of an error; where several addresses of a name were tried, the one they share."""
    if error.errno is not None:
        return error.errno
    numbers = set(re.findall(r"\[Errno (\d+)\]", str(error)))
    return int(numbers.pop()) if len(numbers) == 1 else None


def _tunnel_status(error: BaseException) -> int | None:
    if isinstance(error, InvalidProxyStatus):
        return error.response.status_code
    found = _TUNNEL_STATUS.search(str(error))
    return int(found[1]) if found else None


def _credentials_action(proxy: Proxy) -> str:
    if proxy.has_credentials:
        return f"correct the user and the password in {proxy.variable}"
    return f"it requires a user and a password: add them to {proxy.variable}"


def _proxy_failed(text: str) -> Failure:
    return Failure("connect_proxy", text)


def _reason(error: BaseException) -> str:
    number = _errno(error) if isinstance(error, OSError) else None
    return _shown(str(error) if number is None else os.strerror(number)) or type(error).__name__


def _shown(text: str) -> str:
    """Return the part of a foreign text that may be shown."""
    return _SHOWN.sub(" ", text)[:_MAX_SHOWN_CHARACTERS].strip()
