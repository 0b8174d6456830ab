"""The chart against a real Kubernetes API: every object is taken, hardened pods are admitted, the release's life keeps what it must."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fixtures.kube import Kube, kube, make_namespaces
from fixtures.process import wait_until
from wisp_cluster.build import binary

ROOT = Path(__file__).resolve().parents[3]
SUBSCRIPTION = {
    "apiVersion": "wisp.dev/v1alpha1",
    "kind": "Subscription",
    "metadata": {"name": "on-upload", "namespace": "default"},
    "spec": {
        "function": {"name": "thumbnail"},
        "source": {"bucket": {"name": "photos", "connection": {"name": "my-s3"}}},
    },
}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kube]:
    """A Kubernetes API without anything of ours but the empty namespace, which admits restricted pods only."""
    # Nothing is deleted that another fixture made: the API server's finalizer may forget a CRD that is deleted in its first second.
    with kube(tmp_path_factory.mktemp("kube"), wisp=False) as running:
        make_namespaces(running)
        running.kubectl("label", "namespace", "wisp-system", "pod-security.kubernetes.io/enforce=restricted")
        yield running


@pytest.fixture(scope="module")
def installed(api: Kube) -> Kube:
    """The API with the release in it."""
    done = helm(api, "upgrade", "--install", "wisp", "charts/wisp")
    assert done.returncode == 0, done.stderr
    return api


def helm(api: Kube, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the real Helm as administrator, in wisp-system."""
    command = [str(binary("helm")), "--kubeconfig", str(api.kubeconfig()), "--namespace", "wisp-system", *arguments]
    home = {"HOME": str(api.directory)}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, env=os.environ | home, cwd=ROOT
    )


def rendered(*arguments: str) -> list[dict[str, Any]]:
    """The chart's objects, hooks included."""
    command = [str(binary("helm")), "template", "wisp", "charts/wisp", "--namespace", "wisp-system", *arguments]
    text = subprocess.run(
        [*command, "--kube-version", "1.30.0"], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    ).stdout
    return [document for document in yaml.safe_load_all(text) if document]


def test_install_yaml_applies(api: Kube) -> None:
    """`kubectl apply --server-side -f manifests/install.yaml` is accepted as a whole, with no unknown field."""
    done = api.kubectl(
        "apply",
        "--server-side",
        "--dry-run=server",
        "--validate=strict",
        "-f",
        str(ROOT / "manifests" / "install.yaml"),
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr


def test_pods_are_admitted_as_restricted(api: Kube) -> None:
    """The API server's own Pod Security admission takes every pod of the chart in a restricted namespace."""
    pods = 0
    for one in rendered():
        template = one if one["kind"] == "Pod" else one.get("spec", {}).get("template")
        if not template:
            continue
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": one["metadata"]["name"], "namespace": "wisp-system"},
            "spec": template["spec"],
        }
        for claim in one["spec"].get("volumeClaimTemplates", []):
            name = claim["metadata"]["name"]
            pod["spec"]["volumes"].append({"name": name, "persistentVolumeClaim": {"claimName": name}})
        status, answer = api.request(
            "POST", "/api/v1/namespaces/wisp-system/pods?dryRun=All&fieldValidation=Strict", pod
        )
        assert status == 201, answer["message"]
        pods += 1
    assert pods == 8


def test_release_is_installed_upgraded_and_uninstalled(api: Kube) -> None:
    """Helm installs and upgrades the release; its removal keeps the CRDs and with them what users made."""
    done = helm(api, "install", "wisp", "charts/wisp")
    assert done.returncode == 0, done.stderr
    assert "kubectl apply -f examples/hello/" in done.stdout
    wait_until(lambda: api.kubectl("get", "sub").returncode == 0, "the API serves Subscriptions")
    api.apply(SUBSCRIPTION)

    foreign = 's3.servers=[{"name": "store-1", "endpoint": "https://s3.example", "notificationArns": ["arn:a:b"]}]'
    changes = ("--set", "router.replicas=2", "--set", "minio.enabled=false", "--set-json", foreign)
    done = helm(api, "upgrade", "wisp", "charts/wisp", *changes)
    assert done.returncode == 0, done.stderr
    assert "http://wisp-ingest.wisp-system.svc:8080/v1/s3/store-1" in done.stdout
    router = json.loads(api.kubectl("-n", "wisp-system", "get", "deploy", "wisp-router", "-o", "json").stdout)
    assert router["spec"]["replicas"] == 2
    assert api.kubectl("-n", "wisp-system", "get", "statefulset", "wisp-minio").returncode != 0

    done = helm(api, "uninstall", "wisp", "--no-hooks")
    assert done.returncode == 0, done.stderr
    assert api.kubectl("-n", "wisp-system", "get", "deploy", "wisp-router").returncode != 0
    assert api.kubectl("get", "sub", "on-upload").returncode == 0
    reinstalled = helm(api, "install", "wisp", "charts/wisp")
    assert reinstalled.returncode == 0, reinstalled.stderr


def test_users_roles_reach_the_kinds(installed: Kube) -> None:
    """Who may edit a namespace may edit Functions there, who may view it may only look."""
    binding = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding"}
    for role in ("wisp-viewer", "wisp-editor"):
        installed.apply(
            binding
            | {
                "metadata": {"name": role, "namespace": "default"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                "subjects": [{"kind": "User", "name": role, "apiGroup": "rbac.authorization.k8s.io"}],
            }
        )

    def may(user: str, verb: str, kind: str = "functions.wisp.dev") -> bool:
        return installed.kubectl("auth", "can-i", verb, kind, "--as", user).returncode == 0

    wait_until(lambda: may("wisp-viewer", "list"), "the role is in force")
    assert not may("wisp-viewer", "create")
    wait_until(lambda: may("wisp-editor", "create"), "the role is in force")
    assert may("wisp-editor", "delete")
    for user in ("wisp-viewer", "wisp-editor"):
        assert may(user, "list", "functionquotas.wisp.dev")
        assert not any(may(user, verb, "functionquotas.wisp.dev") for verb in ("create", "update", "patch", "delete"))


@pytest.mark.parametrize(
    ("verb", "resource", "namespace", "allowed"),
    [
        ("get", "secrets", "wisp-system", True),
        ("get", "secrets", "default", False),
        ("list", "secrets", "default", False),
        ("watch", "secrets", "default", False),
        ("create", "secrets", "default", True),
        ("delete", "secrets", "default", True),
        ("create", "services.serving.knative.dev", "default", True),
        ("create", "pods", "default", False),
        ("create", "pods/exec", "default", False),
        ("create", "rolebindings.rbac.authorization.k8s.io", "default", False),
        ("impersonate", "users", "default", False),
    ],
)
def test_operator_may_what_it_needs(installed: Kube, verb: str, resource: str, namespace: str, allowed: bool) -> None:  # noqa: FBT001
    """The API server itself grants the operator's ServiceAccount what it works with, and no tenant's Secret."""
    user = "system:serviceaccount:wisp-system:wisp-operator"
    answer = installed.kubectl("-n", namespace, "auth", "can-i", verb, resource, "--as", user)
    assert (answer.returncode == 0) is allowed, answer.stdout
