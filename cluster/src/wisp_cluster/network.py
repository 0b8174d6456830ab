"""The node's own network namespace, and the one link and two routes that the host has to it.

Everything the node makes (pod links, kube-proxy's rules, hostPort rules, routes) lives in this namespace, so removing it removes all of that;
nothing of it can leak out. The host has one end of a veth pair, a route to the node's ranges, and the same ranges marked unreachable behind it, so that nothing
meant for a pod ever leaves the machine. Inside, everything but those ranges is unreachable: pods have no way out.

The ranges are from 198.18.0.0/15, which RFC 2544 reserves for tests inside one machine or laboratory.
"""

import ipaddress
import json
import subprocess
from pathlib import Path

from wisp_cluster.progress import ClusterError, run

NAMESPACE = "wisp-onenode"
NAMESPACE_PATH = Path("/run/netns") / NAMESPACE
HOST_LINK = "wisp0"
HOST_IP = "198.18.255.1"
NODE_IP = "198.18.255.2"
RANGE = "198.18.0.0/15"
POD_RANGE = "198.18.0.0/20"
SERVICE_RANGE = "198.19.0.0/20"
API_SERVICE_IP = "198.19.0.1"
DNS_SERVICE_IP = "198.19.0.10"
INGRESS_SERVICE_IP = "198.19.0.80"

_TAKEN_HINT = "free the range, or run the cluster on a machine (or in a network namespace) where it is free"


def up() -> None:
    """Create the namespace, links and routes that are missing; harmless when all are there.

    Raises:
        ClusterError: another interface of this machine uses the range.
    """
    taken = foreign_routes(json.loads(run(["ip", "-json", "route", "show", "table", "all"])))
    if taken:
        raise ClusterError(
            f"the range {RANGE} that the node needs is in use on this machine: {', '.join(taken)}", hint=_TAKEN_HINT
        )
    if not _namespace_works():
        _forget_namespace()
        run(["ip", "netns", "add", NAMESPACE])
    if not _host_link_works():
        subprocess.run(["ip", "link", "delete", HOST_LINK], capture_output=True, check=False)
        run(["ip", "link", "add", HOST_LINK, "type", "veth", "peer", "name", "eth0", "netns", NAMESPACE])
    _host("address replace", HOST_IP + "/30", "dev", HOST_LINK)
    _host("link set", HOST_LINK, "up")
    _host("route replace", RANGE, "via", NODE_IP, "dev", HOST_LINK)
    _host("route replace", "unreachable", RANGE, "metric", "4096")
    _inside("link set", "lo", "up")
    _inside("address replace", NODE_IP + "/30", "dev", "eth0")
    _inside("link set", "eth0", "up")
    # kube-proxy rewrites packets for service addresses after routing, so they need a route first; an empty bridge stands in for the dummy device
    # that not every kernel has.
    if "services0" not in _inside("link show"):
        _inside("link add", "services0", "type", "bridge")
    _inside("link set", "services0", "up")
    _inside("route replace", SERVICE_RANGE, "dev", "services0", "src", NODE_IP)
    _inside("route replace", "unreachable", "default", "metric", "4096")
    run(["nsenter", f"--net={NAMESPACE_PATH}", "sysctl", "-q", "-w", "net.ipv4.ip_forward=1"])


def down() -> None:
    """Remove the namespace, the host's link and its routes; what is already gone is skipped."""
    subprocess.run(["ip", "link", "delete", HOST_LINK], capture_output=True, check=False)  # takes its route along
    subprocess.run(["ip", "route", "delete", "unreachable", RANGE, "metric", "4096"], capture_output=True, check=False)
    _forget_namespace()


def problem() -> str | None:
    """What is wrong with the network, or None."""
    if not _namespace_works():
        return f"the network namespace {NAMESPACE} is gone"
    if not _host_link_works():
        return f"the link {HOST_LINK} is gone"
    route = json.loads(run(["ip", "-json", "route", "get", NODE_IP]))
    return None if route[0].get("dev") == HOST_LINK else f"the route to {NODE_IP} leads to {route[0].get('dev')}"


def foreign_routes(routes: list[dict[str, object]]) -> list[str]:
    """The routes in `ip -json route` output that overlap the node's range and are not the node's own, each as `destination dev name`."""
    own = ipaddress.ip_network(RANGE)
    found = []
    for route in routes:
        destination = str(route.get("dst", ""))
        if destination in {"default", ""} or route.get("dev") == HOST_LINK or route.get("type") == "unreachable":
            continue
        network = ipaddress.ip_network(destination, strict=False)
        if network.version == own.version and network.overlaps(own) and network.prefixlen > 0:
            found.append(f"{destination} dev {route.get('dev', '?')}")
    return found


def _namespace_works() -> bool:
    """Whether the name stands for a living namespace and not for the empty file that a killed `ip netns add` leaves."""
    return (
        subprocess.run(["nsenter", f"--net={NAMESPACE_PATH}", "true"], capture_output=True, check=False).returncode == 0
    )


def _host_link_works() -> bool:
    """Whether the host's end exists and its peer is in this very namespace."""
    host = subprocess.run(["ip", "link", "show", HOST_LINK], capture_output=True, check=False)
    inside = subprocess.run(["ip", "-netns", NAMESPACE, "link", "show", "eth0"], capture_output=True, check=False)
    return host.returncode == 0 and inside.returncode == 0


def _forget_namespace() -> None:
    subprocess.run(["ip", "netns", "delete", NAMESPACE], capture_output=True, check=False)
    NAMESPACE_PATH.unlink(missing_ok=True)


def _host(verb: str, *arguments: str) -> str:
    return run(["ip", *verb.split(), *arguments])


def _inside(verb: str, *arguments: str) -> str:
    return run(["ip", "-netns", NAMESPACE, *verb.split(), *arguments])
