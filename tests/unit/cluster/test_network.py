"""The node refuses a machine on which its range is taken, and only such a machine."""

from wisp_cluster import network

Route = dict[str, object]


def test_ordinary_routes_do_not_stand_in_the_way() -> None:
    """Default routes, other networks, IPv6 and the node's own routes are no obstacle."""
    routes: list[Route] = [
        {"dst": "default", "gateway": "10.0.0.1", "dev": "eth0"},
        {"dst": "10.0.0.0/8", "dev": "eth0"},
        {"dst": "fe80::/64", "dev": "eth0"},
        {"dst": network.RANGE, "gateway": network.NODE_IP, "dev": network.HOST_LINK},
        {"type": "unreachable", "dst": network.RANGE, "metric": 4096},
        {"dst": "198.18.255.0/30", "dev": network.HOST_LINK},
    ]
    assert network.foreign_routes(routes) == []


def test_overlap_is_named() -> None:
    """Every foreign route into the range is reported with its interface, be it inside the range, a host, or around it."""
    routes: list[Route] = [
        {"dst": "198.19.4.0/24", "dev": "tun3"},
        {"dst": "198.18.0.7", "dev": "eth1"},
        {"dst": "198.0.0.0/8", "dev": "vpn"},
    ]
    assert network.foreign_routes(routes) == ["198.19.4.0/24 dev tun3", "198.18.0.7 dev eth1", "198.0.0.0/8 dev vpn"]
