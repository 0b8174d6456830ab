"""How the servers of a bundled NATS cluster find and admit each other. Pure.

A server that joins has every account's messages, so the routes between servers have a password of their own, whatever the network lets through.
"""

import hashlib
import hmac

from wisp_operator.nats_auth import ACCOUNT

PORT = 6222


def make_cluster_config(seeds: dict[str, str], peers: list[str], listen: str = f"0.0.0.0:{PORT}") -> str:
    """Part of nats-server's configuration; `peers` are all servers' `host:port`, this one's may be among them."""
    password = hmac.new(seeds[ACCOUNT].encode(), b"routes", hashlib.sha256).hexdigest()
    lines = [
        "# Made by the Wisp operator from the Secret wisp-nats-keys.",
        "cluster {",
        "  name: wisp",
        f'  listen: "{listen}"',
        f'  authorization {{ user: wisp, password: "{password}" }}',
        "  no_advertise: true  # clients use the Service, whose address lasts longer than a pod's",
        "  routes: [",
        *(f'    "nats://wisp:{password}@{peer}"' for peer in peers),
        "  ]",
        "}",
    ]
    return "\n".join(lines) + "\n"
