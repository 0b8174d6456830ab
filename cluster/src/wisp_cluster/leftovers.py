"""What a node leaves on the machine beside its processes and its network: containers, mounts, cgroups, folders. Removed by `down`, checked after it.

Invariant: only what carries the node's own names is touched: cgroups below CGROUP_ROOT, mounts below the state directory and RUN_DIR.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from wisp_cluster import network, processes
from wisp_cluster.components import CGROUP_ROOT, RUN_DIR
from wisp_cluster.paths import cache_dir, state_dir

CGROUPS = Path("/sys/fs/cgroup")
CONTAINER_LOGS = Path("/var/log/containers")
"""Where the kubelet links each container's log, whatever its other folders are."""


SHIM_SOCKETS = Path("/run/containerd/s")


def own_cgroups() -> list[Path]:
    """The node's root cgroup in every hierarchy that has one (one hierarchy on cgroup v2)."""
    name = CGROUP_ROOT.strip("/")
    return [
        path
        for path in (CGROUPS / name, *(each / name for each in CGROUPS.iterdir() if each.is_dir()))
        if path.is_dir()
    ]


def make_cgroups() -> None:
    """Create the root cgroup in every hierarchy; the kubelet wants it to exist."""
    name = CGROUP_ROOT.strip("/")
    hierarchies = (
        [CGROUPS]
        if (CGROUPS / "cgroup.controllers").exists()
        else [each for each in CGROUPS.iterdir() if each.is_dir()]
    )
    for hierarchy in hierarchies:
        path = hierarchy / name
        path.mkdir(exist_ok=True)
        for file in ("cpuset.cpus", "cpuset.mems"):  # a new v1 cpuset is empty, and nothing can run in it
            if (hierarchy / file).exists() and not (path / file).read_text().strip():
                (path / file).write_text((hierarchy / file).read_text())


def container_pids() -> set[int]:
    """Every process in the node's cgroups."""
    return {pid for root in own_cgroups() for pid in pids_below(root)}


def pids_below(cgroup: Path) -> set[int]:
    """The processes of a cgroup and of those below it; cgroups that go away meanwhile have none."""
    found: set[int] = set()
    for folder, _, _ in os.walk(cgroup):
        with contextlib.suppress(OSError):
            found |= {int(line) for line in Path(folder, "cgroup.procs").read_text().split()}
    return found


def find_cgroups(name: str) -> list[Path]:
    """The node's cgroups of this name, in every hierarchy; a container's is named by its id."""
    return [Path(folder, name) for root in own_cgroups() for folder, below, _ in os.walk(root) if name in below]


def kill_containers() -> None:
    """SIGKILL every process in the node's cgroups until none is left, at most for 20 s."""
    deadline = time.monotonic() + 20
    while (pids := container_pids()) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


def mounts() -> list[str]:
    """The node's mount points, the deepest first."""
    roots = (f"{state_dir()}/", f"{RUN_DIR}/")
    points = [
        line.split()[4].encode().decode("unicode_escape")
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
    ]
    return sorted((point for point in points if point.startswith(roots)), key=len, reverse=True)


def unmount() -> None:
    """Detach all mounts of the node; they can be stacked, so again until none is left.

    Buildah leaves its store mounted onto itself; that goes too, unless a build is using it.
    """
    subprocess.run(["umount", str(cache_dir() / "buildah" / "overlay")], capture_output=True, check=False)
    for _ in range(5):
        points = mounts()
        if not points:
            return
        for point in points:
            subprocess.run(["umount", "--lazy", point], capture_output=True, check=False)


def remove() -> None:
    """Remove containers, mounts, cgroups and folders."""
    kill_containers()
    unmount()
    for root in own_cgroups():
        for path, _, _ in os.walk(root, topdown=False):
            with contextlib.suppress(OSError):
                Path(path).rmdir()
    for link in CONTAINER_LOGS.glob("*") if CONTAINER_LOGS.is_dir() else []:
        if link.is_symlink() and str(link.readlink()).startswith(str(state_dir())):
            link.unlink()
    remove_shim_sockets()
    for folder in (RUN_DIR, state_dir()):
        shutil.rmtree(folder, ignore_errors=True)


def remove_shim_sockets() -> None:
    """Remove the sockets of containerd's shims: the only things that containerd has no setting for to keep below RUN_DIR."""
    for file in RUN_DIR.glob("containerd/io.containerd.runtime.v2.task/*/*/bootstrap.json"):
        with contextlib.suppress(OSError, ValueError):  # killed while it was being written
            Path(json.loads(file.read_text())["address"].removeprefix("unix://")).unlink()
    for parent in (SHIM_SOCKETS, SHIM_SOCKETS.parent):
        with contextlib.suppress(OSError):  # absent, or another containerd's
            parent.rmdir()


def left() -> list[str]:
    """What is still there of a node, in words; empty after a complete `down`."""
    return [
        *(f"process {found.pid} ({found.name})" for found in processes.find_all()),
        *(f"process {pid} of a container" for pid in sorted(container_pids())),
        *(f"mount {point}" for point in mounts()),
        *(f"cgroup {path}" for path in own_cgroups()),
        *(f"folder {folder}" for folder in (RUN_DIR, state_dir()) if folder.exists()),
        *([f"network namespace {network.NAMESPACE}"] if network.NAMESPACE_PATH.exists() else []),
        *([f"link {network.HOST_LINK}"] if Path(f"/sys/class/net/{network.HOST_LINK}").exists() else []),
    ]
