"""Which addresses a delivery may go to: what a name in a Subscription resolves to is chosen by whoever owns that name.

Invariant: for a target that is no Function of ours the address that was checked is the one that is connected to; nothing resolves the name a second
time in between. One address that is not admitted refuses the name as a whole, since the next answer could be it alone.
"""

import asyncio
import contextlib
import functools
import ipaddress
import socket
import ssl
from collections.abc import Callable
from typing import Final, TypeVar

from wisp_events.router.request import Address

Made = TypeVar("Made", bound=asyncio.Protocol)
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

CLUSTER: Final = "cluster"
"""A Service of the cluster: any address but those of this machine and its link."""
PUBLIC: Final = "public"
"""A host outside: addresses that are reached over the internet."""

_TRANSLATED: Final = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))
"""IPv6 addresses that stand for IPv4 ones, which may be private."""


class Unreachable(OSError):  # noqa: N818 - what the target is
    """Raised when a name resolves to an address that a delivery may not go to."""


async def connect(to: Address, make: Callable[[], Made]) -> Made:
    """A new connection, of the first address that takes it.

    Raises:
        OSError: there is none.
        Unreachable: the name leads where no delivery may go.
    """
    loop, tls = asyncio.get_running_loop(), _trust() if to.tls else None
    name = to.host if tls else None
    addresses = await resolve(to.host, to.port, to.reach) if to.reach else [to.host]
    for address in addresses[:-1]:
        with contextlib.suppress(OSError):
            return (await loop.create_connection(make, address, to.port, ssl=tls, server_hostname=name))[1]
    return (await loop.create_connection(make, addresses[-1], to.port, ssl=tls, server_hostname=name))[1]


@functools.cache
def _trust() -> ssl.SSLContext:
    """The certificate authorities of the image, or those that SSL_CERT_FILE names."""
    return ssl.create_default_context()


async def resolve(host: str, port: int, reach: str) -> list[str]:
    """The addresses of a host, each of which may be connected to.

    Raises:
        OSError: the name does not resolve.
        Unreachable: it resolves to what is not admitted.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(one[4][0]) for one in found))
    for address in addresses:
        if trouble := refusal(address, reach):
            raise Unreachable(f"{host} resolves to {address}, {trouble}")
    return addresses


def refusal(text: str, reach: str) -> str:
    """Why an address may not be connected to, empty if it may."""
    address = _plain(ipaddress.ip_address(text.partition("%")[0]))
    if address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast:
        return "which is of the router's own machine or link"
    if reach == PUBLIC and not _public(address):
        return "which is not public"
    return ""


def _plain(address: IPAddress) -> IPAddress:
    """The IPv4 address that an IPv6 one is a way to write of."""
    return (isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped) or address


def _public(address: IPAddress) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        translated = any(address in network for network in _TRANSLATED)
        if translated or address.sixtofour or address.teredo or address.is_site_local:
            return False
    return address.is_global
