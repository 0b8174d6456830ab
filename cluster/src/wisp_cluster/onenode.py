"""The one-node cluster: up, down and what is wrong with it.

Invariant: `up` looks at each part, leaves alone what works and makes what does not, in the order in which parts need each other. It keeps no
record of how far it came, so it makes no difference whether the last `up` ended, failed, or was killed with everything it had started.
"""

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from wisp_cluster import components, knative, leftovers, network, processes
from wisp_cluster.build import PROGRAMS, build
from wisp_cluster.certificates import NODE_NAME, make_keys
from wisp_cluster.components import Component
from wisp_cluster.images import archive, built_images
from wisp_cluster.kubectl import Kubectl, condition
from wisp_cluster.packages import install_packages
from wisp_cluster.paths import cluster_dir, http_port, state_dir
from wisp_cluster.progress import ClusterError, Steps, run, wait_for

VOLUMES = 24
"""Persistent volumes of the node, each a folder; see `make_volumes`."""


def kubectl() -> Kubectl:
    """The administrator's access to the cluster."""
    return Kubectl.of_cluster()


def daemons(references: dict[str, str]) -> list[Component]:
    """All daemons in the order of starting."""
    return [
        components.etcd(),
        components.apiserver(),
        components.controller_manager(),
        components.scheduler(),
        components.coredns(),
        components.containerd(references["pause"]),
        components.kubelet(),
        components.kube_proxy(),
        forwarder(),
    ]


def forwarder() -> Component:
    """The port of this machine's loopback leads to the ingress."""
    argv = [sys.executable, "-m", "wisp_cluster.forward", str(http_port()), f"{network.INGRESS_SERVICE_IP}:80"]

    def problem() -> str | None:
        listening = run(["ss", "-Hltn", f"src 127.0.0.1:{http_port()}"]).strip()
        return None if listening else f"nothing listens on port {http_port()}"

    return Component("forward", argv, problem, in_node=False)


def up() -> dict[str, str]:
    """Bring the cluster up, or mend it; return name -> reference of every image that it has.

    Raises:
        ClusterError: a step failed; it says which, why and what to do.
    """
    check_machine()
    steps = Steps(8)
    with steps.step("installing missing packages"):
        install_packages()
    with steps.step(f"building {len(PROGRAMS)} programs (once; the first time takes a quarter of an hour)"):
        build()
    with steps.step("building images (once for each version of their sources)"):
        references = images()
    with steps.step("making the network namespace and the keys"):
        network.up()
        leftovers.make_cgroups()
        make_keys()
    with steps.step("starting Kubernetes"):
        for component in daemons(references):
            component.ensure()
            if component.name == "kube-apiserver":
                kubectl().apply(cluster_dir() / "manifests" / "node.yaml")
            if component.name == "containerd":
                load(references.values())
        wait_for_node()
    with steps.step("making persistent volumes"):
        make_volumes()
    with steps.step("installing Knative Serving and its ingress"):
        knative.apply(kubectl(), references)
    with steps.step("checking that it answers"):
        wait_for(ingress_problem, seconds=60, what="the ingress", hint="python -m wisp_cluster status")
    return references


def check_machine() -> None:
    """Refuse early what can't work.

    Raises:
        ClusterError: not Linux, or not root.
    """
    if sys.platform != "linux" or os.geteuid() != 0:
        raise ClusterError(
            "the one-node cluster needs Linux and root", hint="use CLUSTER=kind with Docker, or run it as root"
        )


def images() -> dict[str, str]:
    """Build the images that the cache lacks; name -> reference."""
    return built_images()


def load(references: Iterable[str]) -> None:
    """Give containerd the images that it does not have."""
    present = run(components.ctr("images", "list", "-q")).split()
    for reference in references:
        if reference not in present:
            run(components.ctr("images", "import", str(archive(reference))), what=f"loading {reference}")


def wait_for_node() -> None:
    """Wait until the node is Ready."""

    def missing() -> str | None:
        node = kubectl().get("node", NODE_NAME)
        if node is None:
            return "it has not registered"
        ready = condition(node, "Ready")
        return None if ready.get("status") == "True" else ready.get("message", "no condition yet")

    wait_for(
        missing, seconds=120, what="the node", log=components.kubelet().log, hint="python -m wisp_cluster logs kubelet"
    )


def make_volumes() -> None:
    """A pool of local volumes behind the default StorageClass; those whose claim is gone are emptied and offered again."""
    cluster = kubectl()
    existing = {volume["metadata"]["name"]: volume for volume in cluster.items("persistentvolumes")}
    wanted = []
    for number in range(VOLUMES):
        name, folder = f"local-{number:02}", state_dir() / "volumes" / f"{number:02}"
        if existing.get(name, {}).get("status", {}).get("phase") in {"Released", "Failed"}:
            cluster("delete", "persistentvolume", name, "--wait=true")
            shutil.rmtree(folder)
        elif name in existing:
            continue
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o777)  # any user of a pod may write; the folder above is root's alone
        wanted.append(volume(name, folder))
    (state_dir() / "volumes").chmod(0o711)
    if wanted:
        cluster.apply(knative.as_list(wanted))


def volume(name: str, folder: Path) -> knative.Object:
    """One local PersistentVolume."""
    expression = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE_NAME]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "10Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "local",
            "local": {"path": str(folder)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}},
        },
    }


def ingress_problem() -> str | None:
    """What keeps the port of this machine's loopback from reaching the ingress: any HTTP answer will do."""
    answers = components.http_code(f"http://127.0.0.1:{http_port()}/") is not None
    return None if answers else f"no HTTP answer on 127.0.0.1:{http_port()}"


def exists() -> bool:
    """Whether there is one, working or not."""
    return network.NAMESPACE_PATH.exists() or bool(processes.find_all())


def status() -> dict[str, str | None]:
    """Each part of the node -> what is wrong with it, or None."""
    if not exists():
        return {"cluster": "there is none; `make up` makes one"}
    found: dict[str, str | None] = {"network": network.problem()}
    running = {each.name for each in processes.find_all()}
    for component in daemons({"pause": pause_reference()}):
        found[component.name] = component.status() if component.name in running else "not running"
    if found["kube-apiserver"] is None:
        for namespace in (knative.NAMESPACE, knative.INGRESS_NAMESPACE):
            for each in kubectl().within(namespace).items("deployments"):
                available = condition(each, "Available")
                working = available.get("status") == "True"
                found[f"{namespace}/{each['metadata']['name']}"] = (
                    None if working else available.get("message", "no condition yet")
                )
        found["ingress"] = ingress_problem()
    return found


def pause_reference() -> str:
    """The pause image that containerd was configured with, without building anything."""
    config = state_dir() / "conf" / "containerd.toml"
    lines = config.read_text().splitlines() if config.exists() else []
    return next((line.split("'")[1] for line in lines if line.strip().startswith("sandbox = ")), "")


def down() -> None:
    """Remove the node and all that it made on this machine; the cache of programs and images stays.

    Raises:
        ClusterError: something could not be removed; it is named.
    """
    steps = Steps(3)
    with steps.step("ending the node's processes"):
        agents = [each for each in processes.find_all() if each.name != "containerd"]
        processes.stop(agents, grace_seconds=2)  # nothing of theirs is kept, so there is little to finish
        leftovers.kill_containers()
        processes.stop(processes.find_all(), grace_seconds=2)
    with steps.step("removing mounts, cgroups and folders"):
        leftovers.remove()
    with steps.step("removing the network"):
        network.down()
    left = leftovers.left()
    if left:
        raise ClusterError("not everything is gone: " + "; ".join(left), hint="run `make down` again")


def kill_everything() -> None:
    """SIGKILL every process of the node, daemons and containers: what a machine does that goes away (for the tests)."""
    processes.send(processes.find_all(), signal.SIGKILL)
    leftovers.kill_containers()
    deadline = time.monotonic() + 20
    while processes.find_all() and time.monotonic() < deadline:
        time.sleep(0.05)


def logs(name: str) -> Path:
    """The log of a daemon.

    Raises:
        ClusterError: there is none of this name; those that there are are named.
    """
    path = state_dir() / "logs" / f"{name}.log"
    if not path.exists():
        there = sorted(each.stem for each in (state_dir() / "logs").glob("*.log"))
        raise ClusterError(f"no log of {name!r}", hint=f"one of: {', '.join(there) or 'none, the node was never up'}")
    return path
