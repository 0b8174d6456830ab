"""`wisp invoke` by way of a real ingest, for people with Kubernetes' own roles: the API server judges them, and an activator on loopback answers."""

from pathlib import Path
from typing import Any

import pytest
from fixtures.called import Activator, say
from fixtures.cli import READY, Operator, Wisp, write_project
from fixtures.dataplane import DataPlane
from fixtures.kube import Kube
from fixtures.process import wait_until
from wisp_api import calling

GROUP = "rbac.authorization.k8s.io"
VIEW, EDIT = "system:aggregate-to-view", "system:aggregate-to-edit"
"""What Kubernetes' controller manager, which doesn't run here, makes the roles view and edit of."""
PROJECT = """
functions:
  hello:
    runtime: python3.13
    handler: app.handler
    code: {folder: function}
    timeoutSeconds: 7
    auth: {type: token}
"""


def allow(cluster: Kube, namespace: str, kind: str, role: str) -> None:
    """Give the user `stranger` a role in a namespace."""
    binding = {
        "metadata": {"name": f"stranger-{role.replace(':', '-')}"},
        "subjects": [{"kind": "User", "name": "stranger", "apiGroup": GROUP}],
        "roleRef": {"kind": kind, "name": role, "apiGroup": GROUP},
    }
    made = cluster.request("POST", f"/apis/{GROUP}/v1/namespaces/{namespace}/rolebindings", binding)
    assert made[0] in {201, 409}, made


def make_role(cluster: Kube, namespace: str, name: str, **rule: Any) -> None:
    """Make a role with one rule, as the chart does."""
    role = {"metadata": {"name": name}, "rules": [rule]}
    made = cluster.request("POST", f"/apis/{GROUP}/v1/namespaces/{namespace}/roles", role)
    assert made[0] in {201, 409}, made


@pytest.fixture
def person(
    wisp: Wisp, operator: Operator, cluster: Kube, plane: DataPlane, activator: Activator, tmp_path: Path
) -> Wisp:
    """The command of somebody who may read Functions and use the ingest, in a namespace with a function that has no pod."""
    assert plane
    assert wisp("deploy", write_project(tmp_path, PROJECT), "--no-wait").code == 0
    operator.judge("functions", "hello", READY, revision="hello-00001")
    accounts = f"/api/v1/namespaces/{wisp.namespace}/serviceaccounts"
    assert cluster.request("POST", accounts, {"metadata": {"name": "default"}})[0] == 201
    make_role(cluster, wisp.namespace, "reader", apiGroups=["wisp.dev"], resources=["functions"], verbs=["get"])
    proxied = {"resources": ["services/proxy"], "resourceNames": ["http:wisp-ingest:8080"]}
    make_role(cluster, "wisp-system", "wisp-ingest-caller", apiGroups=[""], verbs=["create"], **proxied)
    allow(cluster, wisp.namespace, "Role", "reader")
    activator.seen.clear()
    activator.answer = say(200, b'{"ok": true}', content_type="application/json")
    return Wisp(cluster.kubeconfig("stranger"), wisp.namespace)


def test_an_editor_calls_an_idle_function(person: Wisp, cluster: Kube, activator: Activator) -> None:
    """With the role edit, and nothing in Knative's namespace; a viewer may not, nor an editor without the ingest's role, and both are told why."""
    allow(cluster, person.namespace, "ClusterRole", VIEW)
    told = "create serviceaccounts/token"
    wait_until(lambda: told in person("invoke", "hello", "-d", "1").err, "a viewer is told")
    allow(cluster, person.namespace, "ClusterRole", EDIT)
    refused = "nor by way of the platform's ingest (403)"
    wait_until(lambda: refused in person("invoke", "hello", "-d", "1").err, "an editor alone is told")
    assert activator.seen == []
    allow(cluster, "wisp-system", "Role", "wisp-ingest-caller")
    wait_until(lambda: person("invoke", "hello", "-d", '{"n": 1}').code == 0, "an editor with the ingest's role may")
    done = person("invoke", "hello", "-d", '{"n": 1}')
    assert (done.code, done.out) == (0, '{"ok": true}'), done.err
    seen = activator.seen[-1]
    assert (seen.line, seen.body) == ("POST / HTTP/1.1", b'{"n": 1}')
    assert seen.headers["knative-serving-namespace"] == person.namespace
    assert seen.headers["knative-serving-revision"] == "hello-00001"
    assert seen.headers["wisp-authorization"].startswith("Bearer ey")


def test_what_this_way_can_not_do_is_told(wisp: Wisp, person: Wisp, activator: Activator) -> None:
    """Other requests than an event, what the function answers in error, and what Knative answers in its place."""
    assert person.namespace == wisp.namespace
    wait_until(lambda: wisp("invoke", "hello", "-d", "1").code == 0, "the ingest is reached")
    for options in ((), ("-d", "1", "--path", "/x")):
        told = wisp("invoke", "hello", *options)
        assert (told.code, "give a payload, as -d '{}'" in told.err) == (1, True), told.err
    activator.answer = say(500, b'{"errorType": "ValueError", "errorMessage": "no such thing"}')
    failed = wisp("invoke", "hello", "-d", "1")
    assert (failed.code, "the function failed: ValueError: no such thing" in failed.err) == (1, True), failed.err
    activator.answer = say(404, b"revision not found", wisp_request_id="")
    failed = wisp("invoke", "hello", "-d", "1")
    assert (failed.code, "Knative answered 404 in the place of function hello" in failed.err) == (1, True), failed.err
    activator.answer = say(200, b"x" * (calling.LONGEST + 1))
    failed = wisp("invoke", "hello", "-d", "1")
    assert (failed.code, "(502): function hello gave no answer that can be passed on" in failed.err) == (1, True)
