"""Which way to a cluster: kind where Docker and kind are, else the one-node cluster; `CLUSTER=kind|onenode` decides over both."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from wisp_cluster import kind, onenode
from wisp_cluster.progress import ClusterError


class Way(Protocol):
    """What each way can do; the modules `kind` and `onenode` are the two."""

    def up(self) -> dict[str, str]:
        """Make the cluster, or mend it; image name -> reference."""

    def down(self) -> None:
        """Remove the cluster."""

    def exists(self) -> bool:
        """Whether there is one, working or not."""

    def status(self) -> dict[str, str | None]:
        """Each part -> what is wrong with it, or None."""

    def images(self) -> dict[str, str]:
        """Build the images that are missing; name -> reference."""

    def load(self, references: Iterable[str]) -> None:
        """Give the cluster images that were built."""

    def logs(self, name: str) -> Path:
        """The log of one part."""


def chosen() -> Way:
    """The way that `CLUSTER` names, else the one that fits this machine.

    Raises:
        ClusterError: `CLUSTER` names neither.
    """
    ways: dict[str, Way] = {"kind": kind, "onenode": onenode}
    name = os.environ.get("CLUSTER") or ("kind" if kind.available() else "onenode")
    if name not in ways:
        raise ClusterError(
            f"CLUSTER={name} is no way to a cluster", hint="CLUSTER=kind or CLUSTER=onenode, or leave it out"
        )
    return ways[name]
