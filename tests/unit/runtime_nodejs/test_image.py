"""The image agrees with what is tested."""

from __future__ import annotations

import re
import subprocess

from fixtures.node import RUNTIME, node


def test_the_image_has_the_version_whose_hashes_are_listed() -> None:
    """The version that the Dockerfile fetches is the one in node.sha512, for both platforms, and the one that tests run."""
    found = re.search(r"NODE_VERSION=([\d.]+)", (RUNTIME / "Dockerfile").read_text())
    assert found
    listed = [line.split()[1] for line in (RUNTIME / "node.sha512").read_text().splitlines()]
    assert listed == [f"node-linux-{machine}-{found[1]}.tgz" for machine in ("x64", "arm64")]
    told = subprocess.run([node(), "--version"], check=True, capture_output=True, text=True)
    assert told.stdout.strip() == f"v{found[1]}"
