"""Who may call: keys of the cluster and of the platform on their way into a Function's pods."""

import base64
import json
from typing import Any

import pytest
from fixtures.control_plane import SYSTEM, Knative, Operator, secret, wait_condition
from fixtures.kube import Kube
from fixtures.objects import make_function
from fixtures.process import wait_until
from wisp_api import caller
from wisp_operator.callers import public_jwk

pytestmark = pytest.mark.usefixtures("operator", "nats")
KEYS = f"/api/v1/namespaces/{SYSTEM}/secrets/{caller.KEY_SECRET}"


def apply(cluster: Kube, namespace: str, auth: dict[str, Any]) -> None:
    """Write a Function with this `auth`."""
    item = make_function("hello", namespace, auth=auth)
    cluster.apply(item | {"metadata": {"name": "hello", "namespace": namespace}})


def issuers(cluster: Kube, namespace: str) -> dict[str, dict[str, Any]]:
    """What the Function's pods are told, by issuer; empty while there is nothing."""
    found = cluster.get(f"/api/v1/namespaces/{namespace}/configmaps/hello-auth")
    return {one["issuer"]: one for one in json.loads(found["data"]["auth.json"])["issuers"]} if found else {}


def test_a_function_trusts_the_platform_and_the_cluster(cluster: Kube, namespace: str, knative: Knative) -> None:
    """With the keys that each of them signs with; the ConfigMap is the Function's own and holds nothing secret."""
    apply(cluster, namespace, {"type": "token"})
    knative.wait_service("hello")
    found = issuers(cluster, namespace)
    cluster_issuer = cluster.get("/.well-known/openid-configuration")["issuer"]
    assert found[cluster_issuer]["keys"] == cluster.get("/openid/v1/jwks")
    seeds = [secret(cluster, SYSTEM, caller.KEY_SECRET, name) for name in (caller.CURRENT, caller.NEXT)]
    assert found[caller.ISSUER]["keys"]["keys"] == [public_jwk(seed) for seed in seeds]
    text = cluster.get(f"/api/v1/namespaces/{namespace}/configmaps/hello-auth")
    assert text["metadata"]["ownerReferences"][0]["name"] == "hello"
    assert not any(seed in json.dumps(text) for seed in seeds)


def test_a_config_map_of_somebody_else_is_left_alone(cluster: Kube, namespace: str) -> None:
    """The Function says which one is in its way."""
    meta = {"name": "hello-auth", "namespace": namespace}
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"mine": "1"}})
    apply(cluster, namespace, {"type": "token"})
    wait_condition(cluster, "functions", namespace, "hello", "ServiceReady", ("False", "NotOwned"))
    assert cluster.get(f"/api/v1/namespaces/{namespace}/configmaps/hello-auth")["data"] == {"mine": "1"}


def test_a_rotated_key_reaches_functions_without_a_new_revision(
    cluster: Kube, namespace: str, knative: Knative, operator: Operator
) -> None:
    """The rotation of docs/operations.md: the next key, trusted already, signs from now on, and there is a new next one."""
    apply(cluster, namespace, {"type": "token"})
    before = knative.wait_service("hello")["spec"]["template"]
    current, following = (secret(cluster, SYSTEM, caller.KEY_SECRET, name) for name in (caller.CURRENT, caller.NEXT))
    moves = [{"op": "move", "from": "/data/current", "path": "/data/previous"}]
    moves += [{"op": "move", "from": "/data/next", "path": "/data/current"}]
    assert cluster.request("PATCH", KEYS, moves, "application/json-patch+json")[0] == 200
    operator.stop()  # which looks anew when it starts, or when resyncSeconds are over
    operator.start()
    wait_until(lambda: len(issuers(cluster, namespace)[caller.ISSUER]["keys"]["keys"]) == 3, "the new next key")
    data = {name: base64.b64decode(text).decode() for name, text in cluster.get(KEYS)["data"].items()}
    assert (data[caller.PREVIOUS], data[caller.CURRENT]) == (current, following)
    trusted = [key["kid"] for key in issuers(cluster, namespace)[caller.ISSUER]["keys"]["keys"]]
    assert trusted == [public_jwk(data[name])["kid"] for name in (caller.CURRENT, caller.NEXT, caller.PREVIOUS)]
    assert knative.wait_service("hello")["spec"]["template"] == before
