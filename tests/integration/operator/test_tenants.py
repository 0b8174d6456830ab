"""What the roles for people allow, asked of the real authorizer, and that every pod made for a tenant passes Pod Security `restricted`."""

from typing import Any

import msgspec
import pytest
import yaml
from fixtures.kube import REPOSITORY, Kube
from fixtures.objects import make_function
from fixtures.process import wait_until
from wisp_api.function import FunctionSpec
from wisp_operator.code_objects import PodCode
from wisp_operator.config import OperatorConfig, Runtime
from wisp_operator.function_objects import make_knative_service
from wisp_operator.nats_auth import reader_user
from wisp_operator.reader import make_deployment
from wisp_operator.sources import ReaderKey

READ, WRITE = ("get", "list", "watch"), ("create", "update", "patch", "delete", "deletecollection")
OURS = ("wisp.dev/functions", "wisp.dev/subscriptions")
OTHERS = ("/secrets", "/configmaps", "/pods", "serving.knative.dev/services", "apps/deployments")
CONFIG = OperatorConfig(
    namespace="wisp-system",
    runtimes={"python3.13": Runtime(image="python")},
    events_image="events",
    nats_url="nats://log",
)


def may(cluster: Kube, user: str, verb: str, resource: str, namespace: str | None) -> bool:
    """What the authorizer says."""
    group, _, name = resource.partition("/")
    name, _, subresource = name.partition(":")
    asked = {"group": group, "resource": name, "subresource": subresource, "verb": verb, "namespace": namespace or ""}
    kind = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview"}
    review = {**kind, "spec": {"user": user, "resourceAttributes": asked}}
    status, answer = cluster.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    assert status == 201, answer
    return bool(answer["status"]["allowed"])


@pytest.fixture
def people(cluster: Kube, namespace: str) -> str:
    """A namespace in which the users wisp-viewer and wisp-editor have the roles of these names."""
    made = list(yaml.safe_load_all((REPOSITORY / "manifests" / "install.yaml").read_text()))
    for role in ("wisp-viewer", "wisp-editor"):
        cluster.apply(next(item for item in made if item["kind"] == "ClusterRole" and item["metadata"]["name"] == role))
        cluster.apply(
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": {"name": role, "namespace": namespace},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                "subjects": [{"kind": "User", "name": role, "apiGroup": "rbac.authorization.k8s.io"}],
            }
        )
        wait_until(lambda role=role: may(cluster, role, "get", OURS[0], namespace), f"{role} is in force")  # type: ignore[misc]
    return namespace


@pytest.mark.parametrize(("user", "verbs"), [("wisp-viewer", READ), ("wisp-editor", READ + WRITE)])
def test_roles_allow_what_they_say_and_no_more(cluster: Kube, people: str, user: str, verbs: tuple[str, ...]) -> None:
    """A viewer looks, an editor changes; neither writes status, reads Secrets or pods, or acts in another namespace."""
    for verb in READ + WRITE:
        for resource in OURS:
            assert may(cluster, user, verb, resource, people) == (verb in verbs), (verb, resource)
            assert not may(cluster, user, verb, resource, "default"), (verb, resource)
            assert not may(cluster, user, verb, resource, None), (verb, resource)
            assert not may(cluster, user, verb, f"{resource}:status", people), (verb, resource)
        for resource in OTHERS:
            assert not may(cluster, user, verb, resource, people), (verb, resource)


ARCHIVES = PodCode("http://store/v1/media", "a" * 64, ("b" * 64,))
ZIP = {"bucket": "code", "key": "app.zip", "connection": {"name": "minio"}}
LAMBDA_IMAGE: dict[str, Any] = {
    "runtime": "container",
    "signature": "lambda",
    "code": {"image": "registry.example/app:1"},
}
VOLUMES = {
    "volumes": [
        {"name": "a", "projected": {"sources": [{"secret": {"name": "a"}}, {"configMap": {"name": "a"}}]}},
        {"name": "b", "emptyDir": {"medium": "Memory"}},
        {"name": "c", "persistentVolumeClaim": {"claimName": "c"}},
    ],
    "volumeMounts": [{"name": name, "mountPath": f"/mnt/{name}"} for name in "abc"],
}


def knative_pod(archives: PodCode | None = None, **spec: Any) -> dict[str, Any]:
    """The pod of a Function with all that the platform mounts, without what only Knative knows."""
    function = make_function(**spec)
    wanted, ingest = msgspec.convert(function["spec"], FunctionSpec), "http://ingest"
    service = make_knative_service(function, wanted, "python", code=archives, log_lines_url=ingest, ingest_url=ingest)
    pod: dict[str, Any] = service["spec"]["template"]["spec"]
    for container in pod["containers"]:
        for probe in ("readinessProbe", "livenessProbe"):
            container.get(probe, {}).get("httpGet", {}).update({"port": 8080})
    ours = ("containerConcurrency", "timeoutSeconds", "responseStartTimeoutSeconds")
    kept = {key: value for key, value in pod.items() if key not in ours}
    return {"serviceAccountName": "default"} | kept  # as admission does it on a whole cluster


def reader_pod(kind: str) -> dict[str, Any]:
    """The pod of a reader."""
    user = reader_user("media", kind, "mine", "events_media_postgres_mine")
    made = make_deployment("media", ReaderKey(kind, "mine"), user, "", CONFIG, connected=False)
    pod: dict[str, Any] = made["spec"]["template"]["spec"]
    return pod


@pytest.mark.parametrize(
    ("case", "pod"),
    [
        ("inline code", knative_pod()),
        ("executable", knative_pod(runtime="provided", handler=None)),
        ("image", knative_pod(code={"image": "registry.example/app:1"})),
        ("container", knative_pod(runtime="container", handler=None, code={"image": "registry.example/app:1"})),
        ("service account", knative_pod(serviceAccountName="mine")),
        ("image of Lambda's, guarded", knative_pod(**LAMBDA_IMAGE, auth={"type": "token"})),
        ("archives", knative_pod(ARCHIVES, code={"zip": ZIP}, layers=[ZIP])),
        ("variables of a Secret", knative_pod(envFrom=[{"secretRef": {"name": "mail"}}])),
        ("volumes", knative_pod(pod=VOLUMES)),
        ("reader of buckets", reader_pod("s3")),
        ("reader of a database", reader_pod("postgres")),
        ("reader of MySQL", reader_pod("mysql")),
        ("reader of MongoDB", reader_pod("mongodb")),
    ],
)
def test_pods_pass_restricted(cluster: Kube, namespace: str, case: str, pod: dict[str, Any]) -> None:
    """The API server's own Pod Security admission takes the pod in a restricted namespace."""
    cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    item = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod", "namespace": namespace}, "spec": pod}
    status, answer = cluster.request("POST", f"/api/v1/namespaces/{namespace}/pods?dryRun=All", item)
    assert status == 201, (case, answer["message"])
    unsafe = item | {"spec": pod | {"hostNetwork": True}}
    status, answer = cluster.request("POST", f"/api/v1/namespaces/{namespace}/pods?dryRun=All", unsafe)
    assert status == 403, "the namespace refuses what is not restricted"
