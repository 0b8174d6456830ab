"""The cluster where Docker and kind are: Knative Serving from its release, Kourier as its ingress, our images through `kind load`.

Invariant: as with the one-node cluster, `up` makes what is missing and leaves alone what is there, `down` removes all of it,
and nothing but the cluster named CLUSTER is touched. It needs an image registry (for kind's node, Knative and Debian) and Docker's permission to
run privileged containers.
"""

import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from wisp_cluster import knative
from wisp_cluster.certificates import kubeconfig
from wisp_cluster.images import Builder, built_images
from wisp_cluster.kubectl import Kubectl, Object, condition
from wisp_cluster.paths import cluster_dir, http_port, logs_dir
from wisp_cluster.progress import ClusterError, Steps, run

CLUSTER = "wisp"
KNATIVE = "v1.23.0"
"""The release of the Serving module v0.50.0, which the one-node cluster builds."""

RELEASES = (
    f"https://github.com/knative/serving/releases/download/knative-{KNATIVE}/serving-crds.yaml",
    f"https://github.com/knative/serving/releases/download/knative-{KNATIVE}/serving-core.yaml",
    f"https://github.com/knative-extensions/net-kourier/releases/download/knative-{KNATIVE}/kourier.yaml",
)
INGRESS_NAMESPACE = "kourier-system"
NODE_PORT = 31080
SETTINGS = {
    "config-network": {"ingress-class": "kourier.ingress.networking.knative.dev"},
    "config-domain": knative.SETTINGS["config-domain"],
}
_HINT = "check that `docker info` and `kind version` work, or use CLUSTER=onenode"


def available() -> bool:
    """Whether a Docker daemon answers and kind is installed."""
    try:
        commands = (["docker", "info"], ["kind", "version"])
        return all(
            subprocess.run(each, capture_output=True, check=False, timeout=20).returncode == 0 for each in commands
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False


def up() -> dict[str, str]:
    """Bring the cluster up, or complete it; return name -> reference of every image that it has.

    Raises:
        ClusterError: a step failed; it says which, why and what to do.
    """
    if not available():
        raise ClusterError("a kind cluster needs a Docker daemon that answers, and kind", hint=_HINT)
    steps = Steps(4)
    with steps.step("creating the kind cluster"):
        create()
    with steps.step("building images (once for each version of their sources)"):
        references = images()
    with steps.step("loading images"):
        load(references.values())
    with steps.step("installing Knative Serving and Kourier"):
        install_knative(Kubectl.of_cluster())
    return references


def create() -> None:
    """Create the cluster unless it is there, and write its kubeconfig."""
    path = kubeconfig("admin")
    path.parent.mkdir(parents=True, exist_ok=True)
    if CLUSTER in clusters():
        run(["kind", "export", "kubeconfig", "--name", CLUSTER, "--kubeconfig", path], hint=_HINT)
        return
    with tempfile.NamedTemporaryFile("w", prefix="wisp-kind-", suffix=".yaml") as config:
        config.write(render_config(http_port()))
        config.flush()
        run(
            create_command(Path(config.name), path), log=logs_dir() / "kind.log", what="kind create cluster", hint=_HINT
        )


def render_config(port: int) -> str:
    """kind.yaml with the port of this machine filled in."""
    return (cluster_dir() / "kind.yaml").read_text().replace("$PORT", str(port))


def create_command(config: Path, kubeconfig_path: Path) -> list[str]:
    """The command that creates the cluster."""
    options = ["--config", str(config), "--kubeconfig", str(kubeconfig_path), "--wait", "180s"]
    return ["kind", "create", "cluster", "--name", CLUSTER, *options]


def clusters() -> list[str]:
    """The names of all kind clusters of this machine."""
    return run(["kind", "get", "clusters"], hint=_HINT).split()


def images() -> dict[str, str]:
    """Build the images with Docker; name -> reference."""
    return built_images(builder=Builder(docker_has, docker_build, onenode=False))


def docker_has(reference: str) -> bool:
    """Whether Docker holds the image; its tag carries the hash of what is in it, so the name says it all."""
    return subprocess.run(["docker", "image", "inspect", reference], capture_output=True, check=False).returncode == 0


def docker_build(reference: str, context: Path, arguments: dict[str, str], base: str) -> None:
    """Build one image; Docker pulls the base by the name in the Dockerfile."""
    log = logs_dir() / f"image-{reference.rpartition('/')[2].replace(':', '-')}.log"
    log.unlink(missing_ok=True)
    options = [f"--build-arg={name}={value}" for name, value in arguments.items()]
    hint = f"read the log; can Docker pull {base}?" if base else "read the log"
    run(["docker", "build", *options, "--tag", reference, context], log=log, what=f"building {reference}", hint=hint)


def load(references: Iterable[str]) -> None:
    """Give the node the images; kind skips those that it has."""
    for reference in references:
        run(["kind", "load", "docker-image", "--name", CLUSTER, reference], what=f"loading {reference}", hint=_HINT)


def install_knative(kubectl: Kubectl) -> None:
    """Apply the releases, then the settings, and wait until every part is available."""
    for url in RELEASES:
        kubectl("apply", "--server-side", "--force-conflicts", "-f", url)
    knative.wait_for_deployments(kubectl.within(knative.NAMESPACE))
    kubectl.apply(knative.as_list([*settings(), node_port_service()]))
    knative.wait_for_deployments(kubectl.within(INGRESS_NAMESPACE))


def settings() -> list[Object]:
    """The ConfigMaps in which this cluster differs from the release; only our keys, so that applying leaves the others alone."""
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": knative.NAMESPACE},
            "data": data,
        }
        for name, data in SETTINGS.items()
    ]


def node_port_service() -> Object:
    """Kourier behind the port that kind.yaml maps to this machine."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "wisp-ingress", "namespace": INGRESS_NAMESPACE},
        "spec": {
            "type": "NodePort",
            "selector": {"app": "3scale-kourier-gateway"},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "nodePort": NODE_PORT}],
        },
    }


def exists() -> bool:
    """Whether there is one, working or not."""
    return available() and CLUSTER in clusters()


def status() -> dict[str, str | None]:
    """Each part -> what is wrong with it, or None."""
    if not exists():
        return {"cluster": "there is none; `make up` makes one"}
    found: dict[str, str | None] = {}
    for namespace in (knative.NAMESPACE, INGRESS_NAMESPACE):
        for each in Kubectl.of_cluster().within(namespace).items("deployments"):
            working = condition(each, "Available").get("status") == "True"
            found[f"{namespace}/{each['metadata']['name']}"] = None if working else "not available"
    return found


def down() -> None:
    """Delete the cluster and its kubeconfig; images stay in Docker."""
    run(["kind", "delete", "cluster", "--name", CLUSTER, "--kubeconfig", kubeconfig("admin")], hint=_HINT)
    kubeconfig("admin").unlink(missing_ok=True)


def logs(name: str) -> Path:
    """The log of the cluster's creation; Kubernetes' own are kind's to export.

    Raises:
        ClusterError: any other was asked for.
    """
    path = logs_dir() / "kind.log"
    if name != "kind" or not path.exists():
        raise ClusterError(f"no log of {name!r}", hint=f"kind export logs --name {CLUSTER}; here is only `kind`")
    return path
