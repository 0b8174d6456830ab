"""A Function from kubectl apply to an answer, to zero and back, through updates and mistakes."""

import json
from pathlib import Path

import pytest
from fixtures.functions import answering, asking, call, function
from fixtures.platform import upgrade
from fixtures.process import wait_until
from wisp_cluster.kubectl import Kubectl, Object, condition
from wisp_cluster.progress import ClusterError

EXAMPLES = Path(__file__).parents[2] / "examples"


def wait_reason(own: Kubectl, kind: str, name: str, type_: str, reason: str, seconds: float = 180) -> Object:
    """Wait until a condition is False for this reason; return the condition."""

    def current() -> Object:
        return condition(own.get(kind, name) or {}, type_)

    wait_until(
        lambda: current().get("status") == "False" and current().get("reason") == reason,
        f"{name} {type_} is not {reason}",
        seconds,
    )
    return current()


def test_hello_answers_goes_to_zero_and_comes_back(namespace: Kubectl) -> None:
    """The first function of the README answers through the route, has no pod after a while, and answers again."""
    namespace.apply(EXAMPLES / "hello")
    url = namespace.wait_ready("functions", "hello")["status"]["url"]
    status, body = call(url, "/?name=Ada")
    assert (status, "Ada" in body) == (200, True)
    namespace.wait_pods("wisp.dev/function=hello", lambda count: count == 0, "hello goes to zero", 240)
    assert call(url, timeout=60)[0] == 200


def test_columns_tell_what_matters(namespace: Kubectl) -> None:
    """`kubectl get fn` shows Ready, URL, Runtime and Age."""
    namespace.apply(EXAMPLES / "hello")
    namespace.wait_ready("functions", "hello")
    heading, row = namespace("get", "fn").splitlines()
    assert heading.split() == ["NAME", "READY", "URL", "RUNTIME", "AGE"]
    assert row.split()[1] == "True"


def test_update_keeps_the_old_code_until_the_new_one_is_proven(namespace: Kubectl) -> None:
    """While new code rolls out every request is answered, first by the old and then by the new; broken code never takes traffic."""
    namespace.apply(function("rolling", answering("one")))
    url = namespace.wait_ready("functions", "rolling")["status"]["url"]
    with asking(url) as answers:
        wait_until(lambda: (200, '"one"') in answers, "the old code answers")
        namespace.apply(function("rolling", answering("two")))
        wait_until(lambda: answers[-1] == (200, '"two"'), "the new code answers", 120)
        namespace.apply(function("rolling", {"files": {"app.py": "import missing_module\n"}}))
        told = wait_reason(namespace, "functions", "rolling", "Ready", "HandlerImportFailed")
        assert "missing_module" in told["message"]
    assert {status for status, _ in answers} == {200}
    assert answers[-1] == (200, '"two"')
    namespace.apply(function("rolling", answering("three")))
    namespace.wait_ready("functions", "rolling")
    wait_until(lambda: call(url) == (200, '"three"'), "put right, it heals")


def test_mistakes_are_named_in_conditions_and_heal(namespace: Kubectl) -> None:
    """A missing handler and an image that can't be pulled are named with field and cure, and heal when put right."""
    namespace.apply(function("typo", answering("right"), handler="app.handlr"))
    namespace.apply(
        json.dumps(
            {
                "apiVersion": "wisp.dev/v1alpha1",
                "kind": "Function",
                "metadata": {"name": "unpullable"},
                "spec": {"runtime": "container", "code": {"image": "dev.local/no-such-image:1.0"}},
            }
        )
    )
    told = wait_reason(namespace, "functions", "typo", "CodeReady", "HandlerImportFailed")
    assert "handlr" in told["message"]
    told = wait_reason(namespace, "functions", "unpullable", "CodeReady", "ImagePullFailed")
    assert "spec.code.image" in told["message"]
    namespace.apply(function("typo", answering("right")))
    url = namespace.wait_ready("functions", "typo")["status"]["url"]
    assert call(url) == (200, '"right"')


def test_drift_is_repaired(namespace: Kubectl) -> None:
    """A Knative Service that someone deleted is made again."""
    namespace.apply(function("drifting", answering("here")))
    url = namespace.wait_ready("functions", "drifting")["status"]["url"]
    namespace("delete", "services.serving.knative.dev", "drifting", "--wait=true")
    wait_until(
        lambda: namespace.get("services.serving.knative.dev", "drifting") is not None, "the Service is made again"
    )
    namespace("wait", "services.serving.knative.dev/drifting", "--for=condition=Ready", "--timeout=180s")
    wait_until(lambda: call(url) == (200, '"here"'), "it answers again")


def test_deleting_leaves_nothing(namespace: Kubectl) -> None:
    """A deleted Function takes its Service, revisions and ConfigMaps along."""
    namespace.apply(function("gone", answering("soon")))
    namespace.wait_ready("functions", "gone")
    namespace("delete", "function", "gone", "--timeout=180s")
    kinds = "services.serving.knative.dev,revisions.serving.knative.dev,deployments.apps,configmaps"
    wait_until(lambda: not namespace.items(kinds, "wisp.dev/function=gone"), "something of it is left", 120)


def test_an_upgrade_of_the_operator_starts_nothing_anew(namespace: Kubectl) -> None:
    """The operator gets other pods while requests run: none fails, and the function keeps its pod, its revision and its Service as they are."""

    def standing() -> list[tuple[str, int]]:
        found = [
            *namespace.items("pods"),
            *namespace.items("revisions.serving.knative.dev"),
            *namespace.items("services.serving.knative.dev"),
        ]
        return [(item["metadata"]["uid"], item["metadata"].get("generation", 0)) for item in found]

    namespace.apply(function("steady", answering("here"), scale={"min": 1}))
    url = namespace.wait_ready("functions", "steady")["status"]["url"]
    wait_until(lambda: call(url)[0] == 200, "it answers")
    before = standing()
    try:
        with asking(url) as answers:
            upgrade(namespace, "operator.logLevel=DEBUG")
            namespace.apply(function("second", answering("made by the new one")))
            namespace.wait_ready("functions", "second")
    finally:
        upgrade(namespace, "operator.logLevel=INFO")
    assert set(answers) == {(200, '"here"')}
    assert set(before) <= set(standing())


def test_a_quota_bounds_what_functions_may_grow_to(namespace: Kubectl) -> None:
    """What a Function leaves out the quota's defaults say; one that the quota has no room for is refused when it is applied, until there is room."""
    spec = {"instances": 3, "defaults": {"instances": 2}}
    quota = {"apiVersion": "wisp.dev/v1alpha1", "kind": "FunctionQuota", "metadata": {"name": "default"}, "spec": spec}
    namespace.apply(json.dumps(quota))
    namespace.apply(function("first", answering("one")))
    assert namespace.wait_ready("functions", "first")["status"]["reserved"]["instances"] == 2
    second = function("second", answering("two"), scale={"max": 2})
    with pytest.raises(ClusterError, match="instances is 3, other functions have 2, this function asks for 2"):
        namespace.apply(second)

    def used() -> Object:
        status: Object = (namespace.get("functionquotas", "default") or {}).get("status", {})
        return status

    wait_until(lambda: used().get("instances") == 2, "the quota says what is used")
    namespace("delete", "function", "first", "--timeout=180s")
    namespace.apply(second)
    namespace.wait_ready("functions", "second")
    wait_until(lambda: used().get("functions") == 1, "the quota says what is used")


def test_a_changed_config_map_rolls_out(namespace: Kubectl) -> None:
    """A value that a function uses is the new one soon after it changed, with nothing else said; one that it doesn't use changes nothing."""

    def configure(**data: str) -> None:
        namespace.apply(
            json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "texts"}, "data": data})
        )

    configure(greeting="good morning", other="a")
    code = {"files": {"app.py": "import os\n\n\ndef handler(event, context):\n    return os.environ['GREETING']\n"}}
    env = [{"name": "GREETING", "valueFrom": {"configMapKeyRef": {"name": "texts", "key": "greeting"}}}]
    namespace.apply(function("greeter", code, env=env, scale={"min": 1}))
    before = namespace.wait_ready("functions", "greeter")["status"]
    assert call(before["url"]) == (200, '"good morning"')
    configure(greeting="good morning", other="b")
    configure(greeting="good evening", other="b")
    wait_until(lambda: call(before["url"]) == (200, '"good evening"'), "the new value answers", 120)
    assert len(namespace.items("revisions.serving.knative.dev", "wisp.dev/function=greeter")) == 2
