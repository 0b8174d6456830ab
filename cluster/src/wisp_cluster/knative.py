"""Knative Serving and its ingress as they run on the one node: the release's own manifests, our images, settings for two cores.

Knative's feature flags stay at their defaults, because those are what users' clusters have.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from wisp_cluster.build import manifests
from wisp_cluster.kubectl import Kubectl
from wisp_cluster.network import INGRESS_SERVICE_IP
from wisp_cluster.paths import cluster_dir
from wisp_cluster.progress import wait_for

Object = dict[str, Any]

NAMESPACE = "knative-serving"
INGRESS_NAMESPACE = "knative-ingress"
APPLIED = "wisp.dev/applied"
DROPPED_KINDS = {"HorizontalPodAutoscaler"}
LAST = 9
REQUESTS = {"cpu": "20m", "memory": "40Mi"}

SETTINGS: dict[str, dict[str, str]] = {
    "config-network": {"ingress-class": "traefik.ingress.networking.knative.dev"},
    "config-domain": {"127.0.0.1.sslip.io": ""},
    "config-autoscaler": {"scale-to-zero-grace-period": "10s"},
    "config-leader-election": {"lease-duration": "6s", "renew-deadline": "4s", "retry-period": "1s"},
}
"""What differs from the release, per ConfigMap. Leases are short because one node has nobody else to take over, only a restart to wait for."""


def documents(folder: Path) -> list[Object]:
    """All objects of a folder of manifests, in the order of the file names."""
    found = []
    for path in sorted(folder.rglob("*.yaml")):
        found += [document for document in yaml.safe_load_all(path.read_text()) if document]
    return found


def knative_objects(references: dict[str, str]) -> list[Object]:
    """Knative Serving's objects, ready to be applied: ours for the images, SETTINGS in the ConfigMaps, small requests."""
    texts = documents(manifests("knative"))
    objects = [adapt(each, references) for each in texts if each["kind"] not in DROPPED_KINDS]
    return sorted(objects, key=order)


def adapt(document: Object, references: dict[str, str]) -> Object:
    """One object of the release with our images and settings."""
    text = json.dumps(document)
    for program in ("controller", "webhook", "autoscaler", "activator", "queue"):
        text = text.replace(f'"ko://knative.dev/serving/cmd/{program}"', json.dumps(references[f"knative-{program}"]))
    adapted: Object = json.loads(text)
    name = adapted["metadata"]["name"]
    if adapted["kind"] == "ConfigMap" and name in SETTINGS:
        adapted.setdefault("data", {}).update(SETTINGS[name])
    if adapted["kind"] == "Deployment":
        for container in adapted["spec"]["template"]["spec"]["containers"]:
            container["resources"]["requests"] = REQUESTS
            container["resources"].pop("limits", None)
    return adapted


def order(each: Object) -> int:
    """Namespaces and definitions first, webhook configurations last: they would refuse while nobody answers for them."""
    kinds = {
        "Namespace": 0,
        "CustomResourceDefinition": 1,
        "ValidatingWebhookConfiguration": LAST,
        "MutatingWebhookConfiguration": LAST,
    }
    return kinds.get(each["kind"], 5)


def ingress_objects(references: dict[str, str]) -> list[Object]:
    """Traefik as Knative's ingress."""
    text = (cluster_dir() / "manifests" / "traefik.yaml").read_text()
    text = (
        text.replace("$IMAGE", references["traefik"])
        .replace("$NAMESPACE", INGRESS_NAMESPACE)
        .replace("$ADDRESS", INGRESS_SERVICE_IP)
    )
    return [document for document in yaml.safe_load_all(text) if document]


def apply(kubectl: Kubectl, references: dict[str, str]) -> None:
    """Install Knative and its ingress unless this very version is there; then wait until they work.

    Raises:
        ClusterError: something was refused or did not become ready.
    """
    objects = [*knative_objects(references), *ingress_objects(references)]
    digest = hashlib.sha256(json.dumps(objects).encode()).hexdigest()[:16]
    namespace = kubectl.get("namespace", NAMESPACE) or {"metadata": {}}
    if namespace["metadata"].get("annotations", {}).get(APPLIED) != digest:
        definitions = [each for each in objects if order(each) <= 1]
        kubectl.apply(as_list(definitions))
        names = [each["metadata"]["name"] for each in definitions if each["kind"] == "CustomResourceDefinition"]
        kubectl("wait", "--for=condition=Established", "--timeout=60s", *(f"crd/{name}" for name in names))
        # An earlier, unfinished installation may have left webhooks that nobody answers.
        webhooks = [each for each in objects if order(each) == LAST]
        kubectl("delete", "--ignore-not-found", *(f"{each['kind']}/{each['metadata']['name']}" for each in webhooks))
        kubectl.apply(as_list([each for each in objects if 1 < order(each) < LAST]))
        wait_for_deployments(kubectl.within(NAMESPACE))
        kubectl.apply(as_list(webhooks))
        wait_for_webhook(kubectl)
        kubectl("annotate", "--overwrite", "namespace", NAMESPACE, f"{APPLIED}={digest}")
    for each in (NAMESPACE, INGRESS_NAMESPACE):
        wait_for_deployments(kubectl.within(each))


def as_list(objects: Iterable[Object]) -> str:
    """Objects as one manifest."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})


def wait_for_deployments(own: Kubectl) -> None:
    """Wait until every Deployment of a namespace is available."""
    names = [each["metadata"]["name"] for each in own.items("deployments")]
    for name in names:
        own("rollout", "status", f"deployment/{name}", "--timeout=240s")


def wait_for_webhook(kubectl: Kubectl) -> None:
    """Wait until Knative's webhook answers: a valid object is admitted (in a dry run)."""
    container = {"image": "dev.local/none:1"}
    service = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "probe"},
        "spec": {"template": {"spec": {"containers": [container]}}},
    }

    def missing() -> str | None:
        try:
            kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(service))
        except Exception as error:  # noqa: BLE001 - any refusal means: not yet
            return str(error)
        return None

    wait_for(missing, seconds=120, what="Knative's webhook", hint=f"kubectl -n {NAMESPACE} logs deployment/webhook")
