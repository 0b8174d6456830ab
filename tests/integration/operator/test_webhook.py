"""The API server asks the operator before it takes an object, with a certificate that the operator made and renews."""

import base64
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml
from fixtures.control_plane import SYSTEM, Operator, secret, wait_condition
from fixtures.kube import REPOSITORY, Kube
from fixtures.objects import make_function, make_subscription, schedule
from fixtures.process import wait_until
from wisp_operator.webhook_certificate import SECRET, make_certificate

HOOK = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/wisp-operator"


@pytest.fixture
def asked(cluster: Kube, operator: Operator, namespace: str) -> Iterator[str]:
    """A namespace whose objects the operator is asked about, as the chart has it but on loopback."""
    made = yaml.safe_load_all((REPOSITORY / "manifests" / "install.yaml").read_text())
    (hook,) = (item for item in made if item and item["kind"] == "ValidatingWebhookConfiguration")
    (webhook,) = hook["webhooks"]
    url = {"url": f"https://localhost:{operator.webhook_port}/validate"}
    only = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    hook["webhooks"] = [webhook | {"clientConfig": url, "namespaceSelector": only}]
    cluster.apply(hook)
    try:
        wait_until(lambda: refuses(cluster, namespace), "the API server asks the operator")
        yield namespace
    finally:
        cluster.request("DELETE", HOOK)
        wait_until(lambda: not refuses(cluster, namespace), "it is not asked any more")


def refuses(cluster: Kube, namespace: str) -> bool:
    """Whether a Function with a folder in its files is refused."""
    path = f"/apis/wisp.dev/v1alpha1/namespaces/{namespace}/functions?dryRun=All"
    return cluster.request("POST", path, plain(make_function(code={"files": {"lib/app.py": ""}}), namespace))[0] == 422


def plain(item: dict[str, Any], namespace: str) -> dict[str, Any]:
    """The object as a user writes it."""
    return item | {"metadata": {"name": item["metadata"]["name"], "namespace": namespace}}


def test_refused_with_the_field(cluster: Kube, asked: str) -> None:
    """What no schema can see is refused by `kubectl apply` with a sentence; what is right is taken."""
    wrong = make_subscription(source=schedule(timezone="Europe/Atlantis"))
    assert "there is no time zone 'Europe/Atlantis'" in cluster.refusal(plain(wrong, asked))
    over = make_subscription(source=schedule(None, at="2020-01-01T00:00:00Z"))
    assert "was over when this Subscription was made" in cluster.refusal(plain(over, asked))
    cluster.apply(plain(make_function(), asked), plain(make_subscription(source=schedule()), asked))


def test_what_was_taken_before_can_be_labelled(cluster: Kube, asked: str) -> None:
    """An object from before the webhook keeps its spec, and only a new mistake is refused."""
    hook = cluster.get(HOOK)
    cluster.request("DELETE", HOOK)
    wait_until(lambda: not refuses(cluster, asked), "the operator is away")
    cluster.apply(plain(make_function(code={"files": {"lib/app.py": ""}}), asked))
    wait_condition(cluster, "functions", asked, "hello", "Ready", ("False", "InvalidCode"))
    cluster.apply(
        {key: hook[key] for key in ("apiVersion", "kind", "webhooks")} | {"metadata": {"name": "wisp-operator"}}
    )
    wait_until(lambda: refuses(cluster, asked), "it is back")
    assert cluster.kubectl("label", "fn", "hello", "-n", asked, "team=a").returncode == 0
    changed = make_function(code={"files": {"lib/b.py": ""}})
    assert "lib/b.py" in cluster.refusal(plain(changed, asked))


def test_certificate_is_renewed(cluster: Kube, asked: str) -> None:
    """A certificate that ends soon is replaced, and the API server goes on asking."""
    old = make_certificate(f"wisp-operator.{SYSTEM}.svc", datetime.now(UTC), timedelta(days=1))
    values = {"tls.crt": old.certificate, "tls.key": old.key, "ca.crt": old.bundle}
    path = f"/api/v1/namespaces/{SYSTEM}/secrets/{SECRET}"
    status, answer = cluster.request("PATCH", path, {"stringData": values}, "application/merge-patch+json")
    assert status == 200, answer
    wait_until(lambda: secret(cluster, SYSTEM, SECRET, "tls.crt") != old.certificate, "a new certificate")
    bundle = secret(cluster, SYSTEM, SECRET, "ca.crt")
    assert bundle == secret(cluster, SYSTEM, SECRET, "tls.crt") + old.certificate

    def told() -> bool:
        (hook,) = cluster.get(HOOK)["webhooks"]
        return base64.b64decode(hook["clientConfig"]["caBundle"]).decode() == bundle

    wait_until(told, "the API server is told")
    wait_until(lambda: refuses(cluster, asked), "it asks with the new certificate")
