"""A Function's life against a real Kubernetes API: deployed, changed, broken, healed, repaired, deleted."""

from typing import Any

import pytest
from fixtures.control_plane import (
    SERVING,
    SYSTEM,
    WISP,
    Knative,
    Operator,
    audit_position,
    condition,
    conditions_of,
    wait_condition,
    writes,
)
from fixtures.kube import Kube
from fixtures.objects import make_function
from fixtures.process import wait_until

pytestmark = pytest.mark.usefixtures("operator", "nats")
READY, OK = "Ready", ("True", "AsWanted")


def function(namespace: str, name: str = "hello", **spec: Any) -> dict[str, Any]:
    """A Function as a user writes it."""
    item = make_function(name, namespace, **spec)
    return item | {"metadata": {"name": name, "namespace": namespace}}


def config_maps(cluster: Kube, namespace: str) -> set[str]:
    """Names of the Functions' ConfigMaps."""
    found = cluster.get(f"/api/v1/namespaces/{namespace}/configmaps?labelSelector=wisp.dev/function")
    return {item["metadata"]["name"] for item in found["items"]}


def live(cluster: Kube, namespace: str, name: str = "hello") -> Any:
    """The Function."""
    return cluster.get(f"/apis/wisp.dev/v1alpha1/namespaces/{namespace}/functions/{name}")


def test_deployed(cluster: Kube, namespace: str, knative: Knative) -> None:
    """An applied Function becomes a Service; when Knative says so it is Ready with URL, address, revision and traffic."""
    cluster.apply(function(namespace))
    assert knative.wait_service("hello")["metadata"]["ownerReferences"][0]["kind"] == "Function"
    wait_condition(cluster, "functions", namespace, "hello", READY, ("Unknown", "Deploying"))
    revision = knative.roll_out("hello")
    wait_condition(cluster, "functions", namespace, "hello", READY, OK)
    status = live(cluster, namespace)["status"]
    assert status["url"] == f"http://hello.{namespace}.example"
    assert status["address"]["url"] == f"http://hello.{namespace}.svc.cluster.local"
    assert status["revision"] == revision
    assert status["traffic"] == [{"revision": revision, "percent": 100}]
    assert status["observedGeneration"] == 1
    assert cluster.kubectl("get", "fn", "hello", "-n", namespace, "--no-headers").stdout.split()[1] == "True"


def test_user_sees_nothing_of_ours_in_the_object(cluster: Kube, namespace: str, knative: Knative) -> None:
    """No annotation, label or finalizer is written into a Function."""
    cluster.apply(function(namespace))
    knative.roll_out("hello")
    wait_condition(cluster, "functions", namespace, "hello", READY, OK)
    metadata = live(cluster, namespace)["metadata"]
    assert set(metadata["annotations"]) == {"kubectl.kubernetes.io/last-applied-configuration"}
    assert "finalizers" not in metadata
    assert "labels" not in metadata


def test_new_code_is_a_new_revision_and_old_code_goes_when_unused(
    cluster: Kube, namespace: str, knative: Knative
) -> None:
    """The old ConfigMap stays as long as a Revision reads it."""
    cluster.apply(function(namespace))
    first = knative.roll_out("hello")
    wait_condition(cluster, "functions", namespace, "hello", READY, OK)
    before = config_maps(cluster, namespace)
    cluster.apply(function(namespace, code={"files": {"app.py": "new"}}))
    wait_until(lambda: len(config_maps(cluster, namespace)) == 2, "a second ConfigMap")
    wait_condition(cluster, "functions", namespace, "hello", READY, ("Unknown", "Deploying"))
    assert live(cluster, namespace)["status"]["traffic"][0]["revision"] == first, "the old revision serves on"
    second = knative.roll_out("hello")
    assert second != first
    wait_condition(cluster, "functions", namespace, "hello", READY, OK)
    assert len(config_maps(cluster, namespace)) == 2
    cluster.request("DELETE", f"/apis/serving.knative.dev/v1/namespaces/{namespace}/revisions/{first}")
    cluster.apply(function(namespace, code={"files": {"app.py": "newer"}}))
    wait_until(
        lambda: knative.wait_service("hello")["spec"]["template"]["metadata"]["name"] != second, "a third revision"
    )
    knative.roll_out("hello")
    wait_condition(cluster, "functions", namespace, "hello", READY, OK)
    wait_until(lambda: len(config_maps(cluster, namespace)) == 2, "the first ConfigMap goes")
    assert config_maps(cluster, namespace).isdisjoint(before)


def test_change_costs_two_writes(cluster: Kube, namespace: str, knative: Knative) -> None:
    """Apart from made objects, a change is one write of the Service and one of the status."""
    cluster.apply(function(namespace))
    knative.roll_out("hello")
    wait_condition(cluster, "functions", namespace, "hello", READY, OK)
    since = audit_position(cluster)
    cluster.apply(function(namespace, scale={"max": 7}))
    wait_condition(cluster, "functions", namespace, "hello", READY, ("Unknown", "Deploying"))
    done = [write for write in writes(cluster, since, namespace) if "hello" in write]
    assert done == ["patch services/hello", "patch functions/hello status"]


@pytest.mark.parametrize(
    ("state", "reason", "words"),
    [
        (
            condition(
                "ContainerHealthy",
                "False",
                "ExitCode1",
                "Container failed with: Runtime.ImportModuleError: No module named 'foo'",
            ),
            "HandlerImportFailed",
            ["spec.handler app.handler", "No module named 'foo'"],
        ),
        (
            condition(
                "ContainerHealthy", "False", "ExitCode1", "Container failed with: Runtime.HandlerNotFound: 'missing'"
            ),
            "HandlerImportFailed",
            ["Runtime.HandlerNotFound"],
        ),
        (
            condition("ContainerHealthy", "False", "ContainerMissing", 'Unable to fetch image "gone": 404'),
            "ImagePullFailed",
            ["spec.code.image gone", "spec.pod.imagePullSecrets"],
        ),
        (
            condition("ResourcesAvailable", "False", "CreateContainerConfigError", 'secret "none" not found'),
            "ContainerConfigInvalid",
            ['secret "none" not found'],
        ),
    ],
)
def test_broken_code_is_explained_and_heals(
    cluster: Kube, namespace: str, knative: Knative, state: dict[str, Any], reason: str, words: list[str]
) -> None:
    """What stops a revision is in the condition and in an Event; the corrected Function is Ready without anything being deleted."""
    cluster.apply(function(namespace, code={"image": "gone"}))
    knative.roll_out("hello", [state])
    message = wait_condition(cluster, "functions", namespace, "hello", READY, ("False", reason))
    for word in words:
        assert word in message
    path = f"/api/v1/namespaces/{namespace}/events"
    wait_until(lambda: any(item["reason"] == reason for item in cluster.get(path)["items"]), "an Event tells of it")
    cluster.apply(function(namespace, code={"image": "there"}))
    wait_until(
        lambda: knative.wait_service("hello")["spec"]["template"]["spec"]["containers"][0]["image"] == "there",
        "the new image",
    )
    knative.roll_out("hello")
    wait_condition(cluster, "functions", namespace, "hello", READY, OK)


@pytest.mark.parametrize(
    ("state", "reason", "word"),
    [
        (
            {"terminated": {"reason": "Error", "exitCode": 1, "message": "Runtime.ImportModuleError: no foo"}},
            "HandlerImportFailed",
            "no foo",
        ),
        ({"waiting": {"reason": "ImagePullBackOff", "message": "404"}}, "ImagePullFailed", "404"),
    ],
)
def test_pod_that_does_not_start_is_explained_before_knative_gives_up(
    cluster: Kube, namespace: str, knative: Knative, state: dict[str, Any], reason: str, word: str
) -> None:
    """What the kubelet writes into a pod is in the condition while Knative still waits, and gone once the pod is well."""
    cluster.apply(function(namespace, code={"image": "there"}))
    waiting = [condition(kind, "Unknown", "Deploying") for kind in ("Ready", "ContainerHealthy", "ResourcesAvailable")]
    revision = knative.roll_out("hello", waiting)
    wait_condition(cluster, "functions", namespace, "hello", READY, ("Unknown", "Deploying"))
    knative.run_pod(revision, state)
    message = wait_condition(cluster, "functions", namespace, "hello", READY, ("False", reason))
    assert word in message
    events = f"/api/v1/namespaces/{namespace}/events"
    wait_until(lambda: any(item["reason"] == reason for item in cluster.get(events)["items"]), "an Event tells of it")
    knative.run_pod(revision, {"running": {}}, ready=True)
    wait_condition(cluster, "functions", namespace, "hello", READY, ("Unknown", "Deploying"))
    knative.start(revision, "hello")
    wait_condition(cluster, "functions", namespace, "hello", READY, OK)


def test_a_refused_change_leaves_what_serves(cluster: Kube, namespace: str, knative: Knative) -> None:
    """A change that can't be deployed is told of; address and traffic of the revision before stay, for callers and routes."""
    cluster.apply(function(namespace))
    revision = knative.roll_out("hello")
    wait_condition(cluster, "functions", namespace, "hello", READY, OK)
    cluster.apply(function(namespace, code={"files": {"lib/app.py": ""}}))
    wait_condition(cluster, "functions", namespace, "hello", READY, ("False", "InvalidCode"))
    status = cluster.get(f"{WISP}/namespaces/{namespace}/functions/hello")["status"]
    assert status["url"] == f"http://hello.{namespace}.example"
    assert status["traffic"] == [{"revision": revision, "percent": 100}]


def test_file_name_that_no_config_map_takes(cluster: Kube, namespace: str, knative: Knative) -> None:
    """A folder in code.files is named in the condition; corrected, the Function deploys."""
    cluster.apply(function(namespace, code={"files": {"lib/app.py": ""}}))
    message = wait_condition(cluster, "functions", namespace, "hello", READY, ("False", "InvalidCode"))
    assert "lib/app.py" in message
    assert "spec.code.image" in message
    assert knative.service("hello") is None
    cluster.request(
        "PATCH",
        f"/apis/wisp.dev/v1alpha1/namespaces/{namespace}/functions/hello",
        {"spec": {"code": {"files": {"lib/app.py": None, "app.py": ""}}}},
        "application/merge-patch+json",
    )
    knative.roll_out("hello")
    wait_condition(cluster, "functions", namespace, "hello", READY, OK)


def test_service_of_someone_else_is_left_alone(cluster: Kube, namespace: str, knative: Knative) -> None:
    """A Knative Service of the same name that isn't ours is not touched; once it is gone the Function deploys."""
    spec = {"template": {"spec": {"containers": [{"image": "theirs"}]}}}
    cluster.apply(
        {
            "apiVersion": "serving.knative.dev/v1",
            "kind": "Service",
            "metadata": {"name": "hello", "namespace": namespace},
            "spec": spec,
        }
    )
    cluster.apply(function(namespace))
    message = wait_condition(cluster, "functions", namespace, "hello", READY, ("False", "NotOwned"))
    assert "delete it, or give the Function another name" in message
    assert knative.wait_service("hello")["spec"] == spec
    cluster.request("DELETE", f"/apis/serving.knative.dev/v1/namespaces/{namespace}/services/hello")
    cluster.apply(function(namespace, memory="256Mi"))
    wait_until(
        lambda: bool((knative.service("hello") or {}).get("metadata", {}).get("ownerReferences")), "our own Service"
    )


@pytest.mark.parametrize(
    ("case", "path", "patch"),
    [
        ("Service edited", "{serving}/services/hello", {"spec": {"template": {"spec": {"timeoutSeconds": 5}}}}),
        (
            "label taken away",
            "{serving}/services/hello",
            {"metadata": {"labels": {"networking.knative.dev/visibility": None}}},
        ),
        ("Service deleted", "{serving}/services/hello", None),
        ("code deleted", "/api/v1/namespaces/{namespace}/configmaps/{code}", None),
    ],
)
def test_drift_is_repaired(
    cluster: Kube, namespace: str, knative: Knative, case: str, path: str, patch: dict[str, Any] | None
) -> None:
    """What someone else changes or deletes comes back, without any change of the Function."""
    cluster.apply(function(namespace))
    knative.roll_out("hello")
    wait_condition(cluster, "functions", namespace, "hello", READY, OK)
    path = path.format(
        serving=f"/apis/serving.knative.dev/v1/namespaces/{namespace}",
        namespace=namespace,
        code=min(config_maps(cluster, namespace)),
    )
    before = cluster.get(path)
    if patch is None:
        status, _ = cluster.request("DELETE", path)
    else:
        status, _ = cluster.request("PATCH", path, patch, "application/merge-patch+json")
    assert status == 200, case

    def repaired() -> bool:
        now = cluster.get(path)
        keys = ("spec", "data")
        return (
            bool(now)
            and now["metadata"]["labels"] == before["metadata"]["labels"]
            and all(now.get(key) == before.get(key) for key in keys)
        )

    wait_until(repaired, f"{case}: repaired")


def test_deleted(cluster: Kube, namespace: str, knative: Knative) -> None:
    """A deleted Function goes at once: nothing of ours holds it, and all that it made is its own, for Kubernetes to collect."""
    cluster.apply(function(namespace))
    knative.roll_out("hello")
    wait_condition(cluster, "functions", namespace, "hello", READY, OK)
    uid = live(cluster, namespace)["metadata"]["uid"]
    made = [
        knative.wait_service("hello"),
        *cluster.get(f"/api/v1/namespaces/{namespace}/configmaps?labelSelector=wisp.dev/function")["items"],
    ]
    assert all([owner["uid"] for owner in item["metadata"]["ownerReferences"]] == [uid] for item in made)
    since = audit_position(cluster)
    assert cluster.kubectl("delete", "fn", "hello", "-n", namespace, "--wait=false").returncode == 0
    wait_until(lambda: live(cluster, namespace) is None, "the Function is gone")
    assert [write for write in writes(cluster, since, namespace) if "hello" in write] == []


def test_undeployable_timeout_names_the_setting(cluster: Kube, namespace: str) -> None:
    """What the Service's validation refuses comes through with the field; here a policy plays Knative's webhook."""
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": f"webhook-{namespace}"},
        "spec": {
            "matchConstraints": {
                "resourceRules": [
                    {
                        "apiGroups": ["serving.knative.dev"],
                        "apiVersions": ["v1"],
                        "operations": ["CREATE", "UPDATE"],
                        "resources": ["services"],
                    }
                ],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            },
            "validations": [
                {
                    "expression": "object.spec.template.spec.timeoutSeconds <= 600",
                    "message": "validation failed: expected 0 <= 900 <= 600: spec.template.spec.timeoutSeconds",
                }
            ],
        },
    }
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": f"webhook-{namespace}"},
        "spec": {"policyName": f"webhook-{namespace}", "validationActions": ["Deny"]},
    }
    cluster.apply(policy, binding)

    def refuses() -> bool:
        probe = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": "probe"}}
        probe["spec"] = {"template": {"spec": {"timeoutSeconds": 900, "containers": [{"image": "a"}]}}}
        path = f"/apis/serving.knative.dev/v1/namespaces/{namespace}/services?dryRun=All"
        return cluster.request("POST", path, probe)[0] == 422

    wait_until(refuses, "the policy is in force")
    cluster.apply(function(namespace, timeoutSeconds=900))
    message = wait_condition(cluster, "functions", namespace, "hello", READY, ("False", "TimeoutTooLong"))
    assert "max-revision-timeout-seconds" in message
    cluster.apply(function(namespace, timeoutSeconds=60))
    wait_condition(cluster, "functions", namespace, "hello", READY, ("Unknown", "Deploying"))


def test_memory_stays_small(operator: Operator, cluster: Kube, namespace: str, knative: Knative) -> None:
    """The operator at work stays below 110 MiB."""
    cluster.apply(*(function(namespace, f"f{number}") for number in range(20)))
    for number in range(20):
        knative.roll_out(f"f{number}")
    wait_until(
        lambda: all(conditions_of(cluster, "functions", namespace, f"f{n}").get(READY) == OK for n in range(20)),
        "20 Functions are ready",
    )
    assert operator.resident_mebibytes() < 110


def test_none_in_the_platforms_own_namespace(cluster: Kube) -> None:
    """A Function among the platform's credentials is told of and not deployed."""
    cluster.apply(function(SYSTEM, "trespasser"))
    try:
        message = wait_condition(cluster, "functions", SYSTEM, "trespasser", "CodeReady", ("False", "InvalidSpec"))
        assert "platform's own namespace" in message
        assert cluster.get(f"{SERVING}/namespaces/{SYSTEM}/services/trespasser") is None
        assert config_maps(cluster, SYSTEM) == set()
    finally:
        cluster.request("DELETE", f"{WISP}/namespaces/{SYSTEM}/functions/trespasser")
