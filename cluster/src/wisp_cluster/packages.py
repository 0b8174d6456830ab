"""Debian packages that the one-node cluster needs, installed where they are missing."""

import os
import shutil
from pathlib import Path

from wisp_cluster.paths import logs_dir
from wisp_cluster.progress import ClusterError, run

PROGRAMS = {
    "buildah": "buildah",
    "conntrack": "conntrack",
    "curl": "curl",
    "ip": "iproute2",
    "iptables": "iptables",
    "mmdebstrap": "mmdebstrap",
    "nft": "nftables",
    "nsenter": "util-linux",
    "openssl": "openssl",
    "runc": "runc",
    "sysctl": "procps",
}
"""Program -> the package that brings it."""

FILES = {"/usr/lib/cni/ptp": "containernetworking-plugins"}


def missing_packages() -> list[str]:
    """Packages whose program or file is not on this machine."""
    programs = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    return programs + [package for file, package in FILES.items() if not Path(file).exists()]


def install_packages() -> None:
    """Install what is missing.

    Raises:
        ClusterError: this is no machine with apt, or apt failed.
    """
    packages = missing_packages()
    if not packages:
        return
    if shutil.which("apt-get") is None:
        raise ClusterError(
            f"missing: {', '.join(packages)}",
            hint="install them with this machine's package manager, then run it again",
        )
    log = logs_dir() / "packages.log"
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    hint = "read the log; is a Debian mirror reachable?"
    run(["apt-get", "update"], log=log, env=env, what="apt-get update", hint=hint)
    run(
        ["apt-get", "install", "-y", "--no-install-recommends", *packages],
        log=log,
        env=env,
        what=f"installing {', '.join(packages)}",
        hint=hint,
    )
