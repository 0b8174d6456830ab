"""The API server asks the operator before it takes an object, with a certificate that the operator made and renews."""

import base64
from datetime import UTC, datetime, timedelta

from fixtures.admission import HOOK, plain, refuses
from fixtures.control_plane import SYSTEM, secret, wait_condition
from fixtures.kube import Kube
from fixtures.objects import make_function, make_subscription, schedule
from fixtures.process import wait_until
from wisp_operator.webhook_certificate import SECRET, make_certificate


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
