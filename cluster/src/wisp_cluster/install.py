"""Install or upgrade Wisp on the cluster: the chart with the images that were just built.

Invariant: running it again changes nothing unless the checkout changed; a pod restarts only when its image or its
configuration did, because image tags carry the hash of what is in them.
"""

import json

from wisp_cluster.build import binary
from wisp_cluster.kubectl import Kubectl
from wisp_cluster.paths import checkout
from wisp_cluster.progress import Steps, run, wait_for

RELEASE = "wisp"
NAMESPACE = "wisp-system"
IMAGES = {
    "operator": "wisp-operator",
    "events": "wisp-events",
    "runtimePython": "wisp-python",
    "runtimeNodejs": "wisp-nodejs",
    "runtimeProvided": "wisp-provided",
    "nats": "nats",
    "minio": "minio",
}
"""The chart's name of an image -> its name in images.yaml."""
GATEWAYS = ["kourier-internal.kourier-system", "traefik-private.knative-ingress"]
"""Where the name of a Knative Service leads to, with kind and on one node: sinks of all namespaces may (the chart's sinks.services)."""


def image_values(references: dict[str, str]) -> dict[str, dict[str, str]]:
    """The chart's `images` for references of the form `registry/repository:tag`."""
    values = {}
    for name, built in IMAGES.items():
        path, _, tag = references[built].rpartition(":")
        registry, _, repository = path.partition("/")
        values[name] = {"registry": registry, "repository": repository, "tag": tag}
    return values


def install(kubectl: Kubectl, references: dict[str, str]) -> None:
    """Install the chart, or upgrade to it, and wait until every part is ready.

    Raises:
        ClusterError: Helm refused, or a part was not ready in time; it names the part.
    """
    steps = Steps(2)
    with steps.step(f"installing the Helm chart as {NAMESPACE}/{RELEASE}"):
        values = json.dumps({"images": image_values(references), "sinks": {"services": GATEWAYS}})
        command = [str(binary("helm")), "upgrade", "--install", RELEASE, str(checkout() / "charts" / "wisp")]
        options = ["--namespace", NAMESPACE, "--create-namespace", "--values", "-", "--history-max", "3"]
        run([*command, *options], stdin=values, env=kubectl.env, what="helm upgrade --install")
    with steps.step("waiting for operator, NATS, ingest, router and MinIO"):
        wait_available(kubectl.within(NAMESPACE))


def wait_available(system: Kubectl, seconds: float = 300) -> None:
    """Wait until all replicas of the newest version of each workload are ready and no older one is left."""

    def missing() -> str | None:
        workloads = system.items("deployments,statefulsets", f"app.kubernetes.io/instance={RELEASE}")
        late = [f"{each['kind'].lower()} {each['metadata']['name']}" for each in workloads if not settled(each)]
        return ", ".join(late) + " not ready" if late else None

    wait_for(
        missing,
        seconds=seconds,
        what="Wisp",
        hint=f"kubectl -n {NAMESPACE} get pods; kubectl -n {NAMESPACE} describe pods",
    )


def settled(workload: dict[str, dict[str, object]]) -> bool:
    """Whether a Deployment or StatefulSet runs its newest version only, all replicas ready."""
    status, want = workload["status"], workload["spec"].get("replicas", 1)
    observed = status.get("observedGeneration") == workload["metadata"]["generation"]
    return (
        observed
        and status.get("updatedReplicas", 0) == status.get("readyReplicas", 0) == status.get("replicas", 0) == want
    )
