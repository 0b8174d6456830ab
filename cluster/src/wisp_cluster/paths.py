"""Where the cluster package reads and writes: the checkout, the build cache, the node's state.

Invariant: nothing is ever written into the checkout. What can be rebuilt lies in the cache and survives `down`; what belongs to one running
node lies in the state directory and goes with it.
"""

import os
from pathlib import Path

VERSION = "0.1.0"


def checkout() -> Path:
    """The root of the source tree; the package is run from it, never from an installed wheel."""
    return Path(__file__).resolve().parents[3]


def cluster_dir() -> Path:
    """The checkout's `cluster/`: Go modules, Dockerfiles, manifests."""
    return checkout() / "cluster"


def cache_dir() -> Path:
    """Binaries, base images and built images: `$WISP_CACHE`, else `~/.cache/wisp`."""
    return Path(os.environ.get("WISP_CACHE") or Path.home() / ".cache" / "wisp").absolute()


def state_dir() -> Path:
    """All of one cluster, logs and kubeconfig included: `$WISP_STATE`, else `/var/lib/wisp-onenode`, or below the home where that is not ours to write."""
    default = Path("/var/lib/wisp-onenode") if os.geteuid() == 0 else Path.home() / ".local" / "state" / "wisp"
    return Path(os.environ.get("WISP_STATE") or default).absolute()


def http_port() -> int:
    """The port of this machine's loopback on which the ingress answers: `$WISP_HTTP_PORT`, else 8080."""
    return int(os.environ.get("WISP_HTTP_PORT") or 8080)


def logs_dir() -> Path:
    """Logs of builds and images, kept with the cache because they come before any node exists."""
    return cache_dir() / "logs"
