"""Where a Subscription's events go that are for no Function: any Addressable of the namespace, or a URL that an administrator admits."""

import re
from typing import Annotated, Final
from urllib.parse import SplitResult, urlsplit

from msgspec import Meta, Struct

from wisp_api.kube import SubdomainName, rules

API_VERSION_PATTERN: Final = "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?v[0-9][a-z0-9]*$"
_PORTS: Final = {"http": 80, "https": 443}
_HOST: Final = re.compile(
    r"(?=.{1,254}$)([a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?|[0-9a-f:.]*:[0-9a-f:.]*(%[a-z0-9_.-]+)?"
)
"""A name, as far as a resolver takes it, or an address."""


class SinkReference(Struct, rename="camel", kw_only=True):
    """An object of the same namespace: one that says in status.address.url where it takes events, or a Service."""

    api_version: Annotated[
        str,
        Meta(min_length=1, max_length=317),
        # A rule instead of a pattern: one Subscription that was stored without it must not be unreadable, which stops its namespace.
        rules((f"self.matches('{API_VERSION_PATTERN}')", "write group/version, or v1: eventing.knative.dev/v1")),
    ]
    """Its API: eventing.knative.dev/v1, or v1 for a Service."""
    kind: Annotated[str, Meta(min_length=1, max_length=63, pattern="^[A-Z][A-Za-z0-9]*$")]
    """Its kind: Broker, Channel, Service."""
    name: SubdomainName
    """Its name."""


Ref = Annotated[
    SinkReference | None,
    rules(
        (
            "self.kind != 'Function' || !self.apiVersion.startsWith('wisp.dev/')",
            "name a Function of Wisp in the field function, not in a ref",
        )
    ),
]
Uri = Annotated[
    str,
    Meta(max_length=2048),
    rules(
        (
            "self.matches('^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[!-\"$-~]*)?$')",
            "write https://host[:port][/path], without user and fragment",
        ),
        (
            "self.matches('^https?://([A-Za-z0-9-]{1,63}[.])*[A-Za-z0-9-]{1,63}[.]?([:/].*)?$')",
            "the host is no name: write 1 to 63 letters, digits and '-' between its dots",
        ),
    ),
]


class Sink(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Exactly one of the fields."""

    ref: Ref = None
    """An Addressable of this namespace."""
    uri: Uri | None = None
    """A URL outside of the cluster, on a host that the installation admits (chart value sinks.allowed)."""


SINK_RULES: Meta = rules(("has(self.ref) != has(self.uri)", "write exactly one of sink.ref and sink.uri"))


def check_host(host: str | None) -> None:
    """See that a URL's host is one that can be looked up.

    Raises:
        ValueError: it is not.
    """
    if not host or not _HOST.fullmatch(host):
        raise ValueError(f"the host {(host or '')[:253]!r} is no name")


def admitted(uri: str, allowed: list[str]) -> bool:
    """Whether a URL is on one of these hosts: `https://hooks.example.com`, `https://*.example.com:8443`; `*.` stands for one label or more."""
    wanted = urlsplit(uri)
    return bool(wanted.hostname) and any(_on(wanted, urlsplit(one)) for one in allowed)


def _on(wanted: SplitResult, one: SplitResult) -> bool:
    name, host = wanted.hostname or "", one.hostname or ""
    if wanted.scheme != one.scheme or _port(wanted) != _port(one):
        return False
    return name.endswith(host[1:]) and len(name) >= len(host) if host.startswith("*.") else name == host


def _port(url: SplitResult) -> int:
    try:
        return url.port or _PORTS.get(url.scheme, 0)
    except ValueError:
        return 0
