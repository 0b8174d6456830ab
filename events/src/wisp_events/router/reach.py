"""Which addresses a delivery may go to: what a name in a Subscription resolves to is chosen by whoever owns that name.

Invariant: the address that was checked is the one that is connected to; nothing resolves the name a second time in between. One address that is
not admitted refuses the name as a whole, since the next answer could be it alone. A Service's name that has become another name since the operator
looked is refused, wherever it leads: what the operator checked is no longer there.
"""

import ipaddress
from typing import Final

from wisp_events.router.lookup import Names
from wisp_events.router.request import Address

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

FUNCTION: Final = "function"
CLUSTER: Final = "cluster"
"""Services of the cluster: any address but those of this machine and its link."""
PUBLIC: Final = "public"
"""A host outside: addresses that are reached over the internet."""

_WRITES_IPV4: Final = tuple(map(ipaddress.IPv6Network, ("::/96", "::ffff:0:0:0/96", "64:ff9b::/96")))
"""IPv6 addresses whose last 32 bits are an IPv4 one that a translator or an old system makes of them; mapped ones are the standard library's."""
_TUNNELS: Final = tuple(map(ipaddress.IPv6Network, ("2002::/16", "2001::/32", "64:ff9b:1::/48")))
"""6to4, Teredo, and local translators, which may have any form: they lead to an IPv4 address that can't be told."""
_OWN: Final = tuple(
    map(
        ipaddress.ip_network,
        (
            "169.254.0.0/16",  # most clouds
            "192.0.0.0/24",  # Oracle's
            "168.63.129.16/32",  # Azure's, a public address
            "100.100.100.200/32",  # Alibaba's
            "fd00:ec2::254/128",  # Amazon's
            "fd20:ce::254/128",  # Google's
        ),
    )
)
"""Where clouds tell a machine its credentials; not all are of the link, as far as the address says."""


class Unreachable(OSError):  # noqa: N818 - what the target is
    """Raised when a name resolves to an address that a delivery may not go to."""


async def resolve(to: Address, names: Names) -> list[str]:
    """The addresses of a target, each of which may be connected to.

    Raises:
        OSError: the name does not resolve.
        Unreachable: it resolves to what is not admitted.
    """
    name = to.service or to.host
    found = await names.look_up(_absolute(name) if to.reach else name)
    for address, canonical in found.items():
        if to.service and canonical.rstrip(".").lower() != name:
            raise Unreachable(f"{name} is another name for {canonical}, which it was not when the operator looked")
        if to.reach and (trouble := refusal(address, to.reach)):
            raise Unreachable(f"{name} resolves to {address}, {trouble}")
    return list(found)


def _absolute(host: str) -> str:
    """The name itself and no other: the search list of a pod has `hooks.example.com` be a Service `example` of a namespace `com` first."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return f"{host.removesuffix('.')}."
    return host


def refusal(text: str, reach: str) -> str:
    """Why an address may not be connected to, empty if it may."""
    address = _plain(ipaddress.ip_address(text.partition("%")[0]))
    if address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast:
        return "which is of the router's own machine or link"
    if any(address in network for network in _OWN):
        return "which is where a cloud tells its machines their credentials"
    if any(address in network for network in _TUNNELS):
        return "which stands for another address"
    if reach == PUBLIC and not _public(address):
        return "which is not public"
    return ""


def _plain(address: IPAddress) -> IPAddress:
    """The IPv4 address that an IPv6 one is a way to write of."""
    if isinstance(address, ipaddress.IPv4Address) or address.is_loopback or address.is_unspecified:
        return address
    if address.ipv4_mapped or any(address in network for network in _WRITES_IPV4):
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def _public(address: IPAddress) -> bool:
    return address.is_global and not (isinstance(address, ipaddress.IPv6Address) and address.is_site_local)
