"""Which addresses a delivery may go to."""

import pytest
from wisp_events.router.reach import CLUSTER, PUBLIC, refusal


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.9.9.9",
        "0.0.0.0",
        "169.254.169.254",
        "224.0.0.1",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "::ffff:0:127.0.0.1",
        "64:ff9b::169.254.169.254",
    ],
)
@pytest.mark.parametrize("reach", [CLUSTER, PUBLIC])
def test_the_routers_own_machine_and_link_are_refused(address: str, reach: str) -> None:
    """However they are written, and wherever the delivery is for."""
    assert "own machine or link" in refusal(address, reach)


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1",
        "172.16.3.4",
        "192.168.0.1",
        "100.64.0.1",
        "198.18.0.1",
        "203.0.113.7",
        "240.0.0.1",
        "255.255.255.255",
        "fd00::1",
        "fec0::1",
        "2001:db8::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "::10.0.0.1",
        "::ffff:0:10.0.0.1",
    ],
)
def test_private_addresses_are_for_the_cluster_alone(address: str) -> None:
    """Also those that stand in an IPv6 address."""
    assert refusal(address, PUBLIC) == "which is not public"


@pytest.mark.parametrize(
    "address",
    [
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "fd00:ec2::254",
        "fd20:ce::254",
        "::ffff:168.63.129.16",
        "64:ff9b::100.100.100.200",
    ],
)
@pytest.mark.parametrize("reach", [CLUSTER, PUBLIC])
def test_where_clouds_hand_out_credentials_is_refused(address: str, reach: str) -> None:
    """Also where it is no address of the link, and from the cluster's Services too."""
    assert "credentials" in refusal(address, reach)


@pytest.mark.parametrize("address", ["2002:a9fe:a9fe::", "2001:0:a00:1::", "64:ff9b:1::a00:1"])
@pytest.mark.parametrize("reach", [CLUSTER, PUBLIC])
def test_tunnels_are_refused(address: str, reach: str) -> None:
    """What is at their other end can't be told."""
    assert refusal(address, reach) == "which stands for another address"


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1"])
def test_public_addresses_are_reached(address: str) -> None:
    """From both."""
    assert refusal(address, PUBLIC) == refusal(address, CLUSTER) == ""


def test_services_of_the_cluster_have_private_addresses() -> None:
    """Which are what a reference leads to."""
    assert refusal("10.96.0.10", CLUSTER) == refusal("fd00:10:96::a", CLUSTER) == ""
