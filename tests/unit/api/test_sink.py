"""The hosts that an installation admits."""

import pytest
from wisp_api.sink import admitted, check_host

ALLOWED = ["https://hooks.example.com", "https://*.example.org:8443", "http://plain.example.com"]


@pytest.mark.parametrize(
    "uri",
    [
        "https://hooks.example.com",
        "https://HOOKS.example.com:443/a/b?c=d",
        "https://a.example.org:8443/",
        "https://a.b.example.org:8443/",
        "http://plain.example.com:80/x",
    ],
)
def test_admitted(uri: str) -> None:
    """Scheme, host and port count, the path does not."""
    assert admitted(uri, ALLOWED)


@pytest.mark.parametrize(
    "uri",
    [
        "http://hooks.example.com/",
        "https://hooks.example.com:8443/",
        "https://hooks.example.com.evil.test/",
        "https://evil.test/hooks.example.com",
        "https://hooks.example.com@evil.test/",
        "https://evil.test#https://hooks.example.com",
        "https://example.org:8443/",
        "https://.example.org:8443/",
        "https://evilexample.org:8443/",
        "https://a.example.org/",
        "https://a.example.org:99999/",
        "ftp://plain.example.com/",
        "https:///x",
    ],
)
def test_not_admitted(uri: str) -> None:
    """Nothing else, whatever it looks like."""
    assert not admitted(uri, ALLOWED)


@pytest.mark.parametrize(
    "host", ["a", "a.b-c.example", "a.example.", "a_b.example", "10.0.0.1", "::1", "fe80::1%eth0", "a" * 63, "a." * 126]
)
def test_hosts(host: str) -> None:
    """What a resolver takes, and addresses."""
    check_host(host)


@pytest.mark.parametrize(
    "host", ["", None, ".", "a..b", ".a", "a" * 64, "a." * 127 + "a", "\u00fc.example", "a b", "a/b"]
)
def test_no_hosts(host: str | None) -> None:
    """What the standard library fails at with an error of its own, before anybody is asked."""
    with pytest.raises(ValueError, match="is no name"):
        check_host(host)
