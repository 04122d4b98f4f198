"""Which proxy of the environment applies to an address; one rule for REST and both WebSocket clients."""

from pathlib import Path

import pytest

from hedgelock_ingest.errors import SettingsInvalid
from hedgelock_ingest.redaction import Redaction
from hedgelock_ingest.settings import load_settings, secrets
from hedgelock_ingest.settings.proxies import proxy_for

SHIPPED_FILE = Path(__file__).parents[2] / "config" / "collector.yaml"
WSS = "wss://stream.bybit.com/v5/public/linear"
HTTPS = "https://api.bybit.com"


@pytest.mark.parametrize(
    ("url", "environ", "expected"),
    [
        (WSS, {}, None),
        (WSS, {"HTTPS_PROXY": "http://p:3128"}, "p:3128 (HTTPS_PROXY)"),
        (HTTPS, {"HTTPS_PROXY": "http://p:3128"}, "p:3128 (HTTPS_PROXY)"),
        (WSS, {"HTTP_PROXY": "http://p:3128"}, None),
        ("ws://exchange.test:9001/v5/public/spot", {"HTTP_PROXY": "http://p:3128"}, "p:3128 (HTTP_PROXY)"),
        ("http://exchange.test:9001", {"HTTPS_PROXY": "http://p:3128"}, None),
        (WSS, {"ALL_PROXY": "socks5h://p"}, "p:1080 (ALL_PROXY)"),
        (WSS, {"ALL_PROXY": "socks5h://p", "HTTPS_PROXY": "p:3128"}, "p:3128 (HTTPS_PROXY)"),
        (WSS, {"https_proxy": "http://lower", "HTTPS_PROXY": "http://upper"}, "lower:80 (https_proxy)"),
        (WSS, {"https_proxy": "", "HTTPS_PROXY": "http://upper"}, None),
        (WSS, {"HTTPS_PROXY": " ", "ALL_PROXY": "https://p"}, "p:443 (ALL_PROXY)"),
        (WSS, {"HTTPS_PROXY": "http://[2001:db8::1]:3128/"}, "[2001:db8::1]:3128 (HTTPS_PROXY)"),
        (WSS, {"HTTPS_PROXY": "http://p:3128\r"}, "p:3128 (HTTPS_PROXY)"),
        (WSS, {"WSS_PROXY": "http://p:3128", "SOCKS_PROXY": "http://p:3128"}, None),
        ("ws://127.0.0.1:9001/v5/public/spot", {"HTTP_PROXY": "http://p"}, None),
        ("http://localhost:9001", {"ALL_PROXY": "http://p"}, None),
        ("http://[::1]:9001", {"ALL_PROXY": "http://p"}, None),
    ],
)
def test_the_proxy_of_an_address_is_that_of_its_scheme_or_the_general_one(
    url: str, environ: dict[str, str], expected: str | None
) -> None:
    """REST and lines to the same host must not take different ways."""
    found = proxy_for(url, environ)
    assert (str(found) if found else None) == expected


@pytest.mark.parametrize(
    ("url", "no_proxy", "is_exempt"),
    [
        (WSS, "*", True),
        (WSS, "bybit.com", True),
        (WSS, ".bybit.com", True),
        (WSS, "*.bybit.com", True),
        (WSS, "other.example, Stream.Bybit.com", True),
        (WSS, "other.example Bybit.com", True),
        (WSS, "bit.com", False),
        (WSS, "stream.bybit.com:443", True),
        (WSS, "stream.bybit.com:8443", False),
        (WSS, "", False),
        (WSS, ",", False),
        (WSS, ".", False),
        (WSS, "10.0.0.0/8", False),
        ("ws://10.1.2.3:9001/", "10.0.0.0/8", True),
        ("ws://10.1.2.3:9001/", "10.1.2.3", True),
        ("ws://10.1.2.3:9001/", "10.1.2.3:9001", True),
        ("ws://10.1.2.3:9001/", "10.1.2.3:9002", False),
        ("ws://10.1.2.3:9001/", "2.3", False),
        ("ws://10.1.2.3:9001/", "192.168.0.0/16,fd00::/8", False),
        ("ws://[fd00::7]:9001/", "fd00::/8", True),
        ("ws://[fd00::7]:9001/", "[fd00::7]:9001", True),
        ("wss://stream.bybit.com./v5", "bybit.com", True),
    ],
)
def test_no_proxy_exempts_hosts_domains_networks_and_ports(url: str, no_proxy: str, is_exempt: bool) -> None:
    """Libraries differ in all of these; an operator needs one answer."""
    for name in ("NO_PROXY", "no_proxy"):
        found = proxy_for(url, {"ALL_PROXY": "http://p:3128", name: no_proxy})
        assert (found is None) == is_exempt


@pytest.mark.parametrize(
    "value",
    [
        "socks://127.0.0.1:1080",
        "ftp://p:21",
        '"http://p:3128"',
        "http://",
        "http://p:0",
        "http://p:99999",
        "http://p:3128/path",
        "http://user:pa#s3cret@p:3128",
        "http://user:s3cret@p:3128?x",
        "http://user:s3cret%ff@p:3128",
        "http://p 3128",
        "http://user:s3cret\udcff@p:3128",
        "http://[::1",
    ],
)
@pytest.mark.parametrize("name", ["HTTPS_PROXY", "all_proxy"])
def test_variable_without_a_usable_address_is_refused_by_name(name: str, value: str) -> None:
    """The start would succeed and no line would ever open."""
    with pytest.raises(SettingsInvalid) as refused:
        load_settings({name: value}, SHIPPED_FILE)
    (problem,) = refused.value.problems
    assert problem.startswith(f"{name} (environment): ")
    assert "socks5h" in problem
    assert "NO_PROXY" in problem
    assert "s3cret" not in problem


@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
@pytest.mark.parametrize(
    "value",
    ['"localhost,bybit.com"', "localhost,'bybit.com'", "https://api.bybit.com", "localhost \u201cbybit.com\u201d"],
)
def test_exemption_that_would_match_no_host_is_refused(name: str, value: str) -> None:
    """Bybit would be reached through the proxy from which it should be exempt."""
    with pytest.raises(SettingsInvalid) as refused:
        load_settings({"HTTPS_PROXY": "http://p:3128", name: value}, SHIPPED_FILE)
    (problem,) = refused.value.problems
    assert problem.startswith(f"{name} (environment): it ")
    load_settings({name: value}, SHIPPED_FILE)


def test_variable_that_does_not_apply_is_not_judged() -> None:
    """A desktop sets ALL_PROXY=socks://...; beside HTTPS_PROXY it is not used."""
    load_settings({"ALL_PROXY": "socks://p", "HTTPS_PROXY": "http://p"}, SHIPPED_FILE)
    load_settings({"ALL_PROXY": "socks://p", "NO_PROXY": "bybit.com"}, SHIPPED_FILE)
    load_settings({"HTTP_PROXY": "socks://p"}, SHIPPED_FILE)


def test_proxy_that_pybit_cannot_use_is_refused() -> None:
    """Its library would speak plain HTTP to a proxy that expects TLS."""
    environ = {"HTTPS_PROXY": "https://p"}
    load_settings(environ, SHIPPED_FILE)
    with pytest.raises(SettingsInvalid) as refused:
        load_settings({**environ, "BYBIT_WEBSOCKET_CLIENT": "pybit"}, SHIPPED_FILE)
    (problem,) = refused.value.problems
    assert problem.startswith("HTTPS_PROXY (environment): ")
    assert "BYBIT_WEBSOCKET_CLIENT=websockets" in problem


def test_password_of_a_proxy_is_a_secret_in_every_form() -> None:
    """It is in the environment only; logs and errors must not contain it, also not as a header has it."""
    settings = load_settings({"HTTPS_PROXY": "http://desk:p%40ss%20word@p:3128"}, SHIPPED_FILE)
    proxy = proxy_for(HTTPS, {"HTTPS_PROXY": "http://desk:p%40ss%20word@p:3128"})
    assert proxy is not None
    assert (proxy.username, proxy.password) == ("desk", "p@ss word")
    assert proxy.url == "http://desk:p%40ss%20word@p:3128"
    assert "p@ss word" not in f"{proxy} {proxy!r}"
    redaction = Redaction(secrets(settings))
    for text in ("p@ss word", "p%40ss%20word", "ZGVzazpwQHNzIHdvcmQ="):
        assert text not in redaction.text(f"CONNECT failed, sent {text} to p")
