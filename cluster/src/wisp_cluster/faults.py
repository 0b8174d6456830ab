"""Faults on purpose: kill, pause or cut off pods and daemons of the one-node cluster, for the tests of what survives them.

Invariant: only processes of this node are signalled. A container's processes are those in the cgroup named by its id; each is pinned by a pidfd
and looked up in the cgroup again before the signal, so a pid that was given away meanwhile is never hit. What a context manager here breaks, it
mends when its block ends, however it ends; a test run that is killed inside leaves paused processes and rules, which `down` removes.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from wisp_cluster import leftovers, network, onenode, processes
from wisp_cluster.kubectl import Object
from wisp_cluster.progress import ClusterError, run, wait_for

SHIM = "containerd-shim"
"""Starts the program name of containerd's children, which outlive it and hold the containers."""


def kill_pods(namespace: str, selector: str, container: str = "") -> None:
    """SIGKILL every process of the running containers of the pods that match, and wait until the API server knows that they ended.

    So what is asked about the pods afterwards is never answered from before the kill.

    Args:
        namespace: where the pods are.
        selector: label selector.
        container: the one container to kill in each pod; empty kills all.

    Raises:
        ClusterError: no container matched, or the kubelet did not report the end.
    """
    killed = running_containers(pods(namespace, selector), container)
    if not killed:
        raise ClusterError(f"no running container in {namespace} matches {selector}")
    for identity in killed:
        signal_container(identity, signal.SIGKILL)

    def still_reported() -> str | None:
        left = killed & running_containers(pods(namespace, selector), container)
        return f"{len(left)} killed containers are still reported as running" if left else None

    wait_for(still_reported, seconds=60, what=f"the end of {selector} in {namespace}")


@contextmanager
def paused_pods(namespace: str, selector: str, container: str = "") -> Iterator[None]:
    """SIGSTOP every process of the containers that match while the block runs: they hold their connections and answer nothing.

    Raises:
        ClusterError: no container matched.
    """
    stopped = running_containers(pods(namespace, selector), container)
    if not stopped:
        raise ClusterError(f"no running container in {namespace} matches {selector}")
    try:
        for identity in stopped:
            signal_container(identity, signal.SIGSTOP)
        yield
    finally:
        for identity in stopped:
            signal_container(identity, signal.SIGCONT)


@contextmanager
def cut_off_pods(namespace: str, selector: str) -> Iterator[None]:
    """Drop every packet from and to the pods that match while the block runs: no reset, no ICMP, as when a cable is pulled.

    The kubelet's probes are dropped too. A pod that starts meanwhile has another address and is not cut off.

    Raises:
        ClusterError: no pod with an address matched.
    """
    addresses = [pod["status"]["podIP"] for pod in pods(namespace, selector) if pod["status"].get("podIP")]
    if not addresses:
        raise ClusterError(f"no pod with an address in {namespace} matches {selector}")
    table = f"wisp-fault-{os.getpid()}-{addresses[0].replace('.', '-')}"
    _nft(cut_off_rules(table, addresses))
    try:
        yield
    finally:
        _nft(f"delete table ip {table}\n")


def cut_off_rules(table: str, addresses: list[str]) -> str:
    """The nft script that drops packets from `addresses` before anything else sees them, and to them after all rewriting."""
    listed = ", ".join(addresses)
    return f"""table ip {table} {{
    chain from {{ type filter hook prerouting priority raw; ip saddr {{ {listed} }} drop; }}
    chain to {{ type filter hook postrouting priority 300; ip daddr {{ {listed} }} drop; }}
}}
"""


def kill_component(name: str) -> None:
    """SIGKILL a daemon of the node (`etcd`, `kubelet`, ...; the names that `status` prints); `onenode.up` starts it again.

    Raises:
        ClusterError: it does not run.
    """
    processes.send(_daemons(name), signal.SIGKILL)


@contextmanager
def paused_component(name: str) -> Iterator[None]:
    """SIGSTOP a daemon of the node while the block runs.

    Raises:
        ClusterError: it does not run.
    """
    found = _daemons(name)
    try:
        processes.send(found, signal.SIGSTOP)
        yield
    finally:
        processes.send(found, signal.SIGCONT)


def pods(namespace: str, selector: str) -> list[Object]:
    """The pods that match, as the API server has them now."""
    return onenode.kubectl().within(namespace).items("pods", selector)


def running_containers(found: list[Object], container: str = "") -> set[str]:
    """The ids of the pods' containers that are reported as running (of that name only, where one is given)."""
    return {
        status["containerID"].rpartition("/")[2]
        for pod in found
        for status in pod["status"].get("containerStatuses", [])
        if "running" in status.get("state", {}) and container in {"", status["name"]}
    }


def signal_container(identity: str, signum: signal.Signals) -> None:
    """Signal every process of one container, those included that are forked while this runs."""
    done: set[int] = set()
    while new := container_pids(identity) - done:
        for pid in new:
            _signal_member(identity, pid, signum)
        done |= new


def container_pids(identity: str) -> set[int]:
    """The processes of a container: those in the cgroup of this name, and in cgroups that it made itself."""
    return {pid for cgroup in leftovers.find_cgroups(identity) for pid in leftovers.pids_below(cgroup)}


def _signal_member(identity: str, pid: int, signum: signal.Signals) -> None:
    """Signal a process if, once pinned, it still is in the container."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if pid in container_pids(identity):
            signal.pidfd_send_signal(fd, signum)
    except ProcessLookupError:
        pass  # it ended by itself
    finally:
        os.close(fd)


def _daemons(name: str) -> list[processes.Found]:
    found = [each for each in processes.find_all() if each.name == name and not each.program.startswith(SHIM)]
    if not found:
        raise ClusterError(f"{name} does not run", hint="python -m wisp_cluster status")
    return found


def _nft(script: str) -> None:
    run(["nsenter", f"--net={network.NAMESPACE_PATH}", "nft", "-f", "-"], stdin=script, what="nft")
