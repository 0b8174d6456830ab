"""A Function's conditions come from Knative's, with a constant reason, the field and the cure."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from fixtures.objects import make_function
from wisp_api.function import FunctionSpec
from wisp_operator import function_status
from wisp_operator.api import ApiError
from wisp_operator.status import make_conditions, summary

SPEC = msgspec.convert(make_function()["spec"], FunctionSpec)
IMAGE_SPEC = msgspec.convert(make_function(code={"image": "registry.example/gone:1"})["spec"], FunctionSpec)
READY = {"Ready": ("True", "", "")}


def knative(states: dict[str, tuple[str, str, str]], generation: int = 1) -> dict[str, Any]:
    """A Knative object with these conditions."""
    conditions = [
        {"type": kind, "status": status, "reason": reason, "message": text}
        for kind, (status, reason, text) in states.items()
    ]
    return {"metadata": {"generation": 1}, "status": {"observedGeneration": generation, "conditions": conditions}}


@pytest.mark.parametrize(
    ("case", "revision", "code", "words"),
    [
        ("started once", {"Ready": ("True", "", ""), "ContainerHealthy": ("True", "", "")}, ("True", "AsWanted"), []),
        ("scaled to zero", {"Ready": ("True", "", ""), "Active": ("False", "NoTraffic", "")}, ("True", "AsWanted"), []),
        ("still pulling", {"Ready": ("Unknown", "Deploying", "")}, ("Unknown", "Deploying"), []),
        (
            "handler missing",
            {
                "ContainerHealthy": (
                    "False",
                    "ExitCode1",
                    "Container failed with: Runtime.HandlerNotFound: no attribute 'handler'",
                )
            },
            ("False", "HandlerImportFailed"),
            ["spec.handler app.handler", "Runtime.HandlerNotFound", "keeps serving"],
        ),
        (
            "container exits without a word",
            {"ContainerHealthy": ("False", "ExitCode3", "Container failed with: ")},
            ("False", "ContainerExited"),
            ["ExitCode3", "kubectl logs"],
        ),
        (
            "digest can't be resolved",
            {"ContainerHealthy": ("False", "ContainerMissing", "Unable to fetch image: not found")},
            ("False", "ImagePullFailed"),
            ["registry.example/gone:1", "spec.pod.imagePullSecrets"],
        ),
        (
            "kubelet can't pull",
            {"ResourcesAvailable": ("False", "ImagePullBackOff", "Back-off pulling image")},
            ("False", "ImagePullFailed"),
            ["spec.code.image", "Back-off"],
        ),
        (
            "missing Secret",
            {"ResourcesAvailable": ("False", "CreateContainerConfigError", 'secret "s" not found')},
            ("False", "ContainerConfigInvalid"),
            ['secret "s" not found', "spec.env"],
        ),
        (
            "no node",
            {"ResourcesAvailable": ("False", "Unschedulable", "0/1 nodes are available.")},
            ("False", "Unschedulable"),
            ["spec.memory"],
        ),
        (
            "too slow",
            {"ResourcesAvailable": ("False", "ProgressDeadlineExceeded", "Initial scale was never achieved")},
            ("False", "StartTimeout"),
            ["120 s"],
        ),
        ("anything else", {"Ready": ("False", "Strange", "text")}, ("False", "RevisionFailed"), ["Strange: text"]),
    ],
)
def test_code_ready(
    case: str, revision: dict[str, tuple[str, str, str]], code: tuple[str, str], words: list[str]
) -> None:
    """What the newest revision says becomes CodeReady."""
    service = knative({"Ready": ("Unknown", "", "")})
    aspect = function_status.aspects(IMAGE_SPEC, service, knative(revision))["CodeReady"]
    assert (aspect.status, aspect.reason) == code, case
    for word in words:
        assert word in aspect.message, case


@pytest.mark.parametrize(
    ("case", "service", "wanted"),
    [
        ("all is well", knative(READY), ("True", "AsWanted")),
        ("status of an older spec", knative(READY, generation=0), ("Unknown", "Deploying")),
        (
            "ingress broken",
            knative({"Ready": ("False", "x", ""), "RoutesReady": ("False", "x", "no ingress")}),
            ("False", "RouteNotReady"),
        ),
        (
            "ingress slow",
            knative({"Ready": ("Unknown", "Uninitialized", "Waiting for load balancer")}),
            ("Unknown", "Deploying"),
        ),
        ("not made yet", None, ("Unknown", "Deploying")),
    ],
)
def test_service_ready(case: str, service: dict[str, Any] | None, wanted: tuple[str, str]) -> None:
    """What the Knative Service says becomes ServiceReady, once the code is ready."""
    aspect = function_status.aspects(SPEC, service, knative(READY))["ServiceReady"]
    assert (aspect.status, aspect.reason) == wanted, case


@pytest.mark.parametrize(
    ("case", "status", "body", "wanted", "word"),
    [
        ("no Knative", 404, b"404 page not found", ("False", "KnativeMissing"), "install it"),
        (
            "timeout above the cluster's",
            400,
            b'{"message":"expected 0 <= 900 <= 600: spec.template.spec.timeoutSeconds","reason":"BadRequest"}',
            ("False", "TimeoutTooLong"),
            "max-revision-timeout-seconds",
        ),
        (
            "a flag is off",
            400,
            b'{"message":"must not set the field(s): spec.template.spec.nodeSelector, spec.template.spec.runtimeClassName"}',
            ("False", "FeatureDisabled"),
            "kubernetes.podspec-runtimeclassname: enabled, kubernetes.podspec-nodeselector: enabled into ConfigMap config-features",
        ),
        (
            "claims are not allowed",
            400,
            (
                b'{"message":"Persistent volume claim support is disabled, but found persistent volume claim a:'
                b' must not set the field(s): spec.template.spec.volumes[0].persistentVolumeClaim"}'
            ),
            ("False", "FeatureDisabled"),
            "kubernetes.podspec-persistent-volume-claim: enabled",
        ),
        (
            "a wrong value of a field that a flag allows",
            400,
            b'{"message":"invalid value: x: spec.template.spec.tolerations"}',
            ("False", "ServiceRefused"),
            "tolerations",
        ),
        (
            "Knative of before the field",
            400,
            b'{"message":"mutation failed: cannot decode incoming new object: json: unknown field \\"responseStartTimeoutSeconds\\""}',
            ("False", "KnativeTooOld"),
            "upgrade it",
        ),
        (
            "webhook away",
            500,
            b'{"message":"failed calling webhook"}',
            ("Unknown", "KnativeUnavailable"),
            "tried again",
        ),
    ],
)
def test_refused(case: str, status: int, body: bytes, wanted: tuple[str, str], word: str) -> None:
    """What Knative says against the Service is shown with what to do."""
    aspect = function_status.refused(ApiError(status, body))["ServiceReady"]
    assert (aspect.status, aspect.reason) == wanted, case
    assert word in aspect.message, case


def test_ready_sums_up() -> None:
    """Ready takes the reason of the first aspect that is False, then of one that is Unknown."""
    aspects = function_status.aspects(
        IMAGE_SPEC, None, knative({"ContainerHealthy": ("False", "ContainerMissing", "x")})
    )
    assert summary(aspects.values()).reason == "ImagePullFailed"


def test_transition_time_moves_with_the_status_only() -> None:
    """A condition whose message alone changes keeps its time."""
    function = make_function()
    early, late = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    waiting = function_status.aspects(SPEC, None, None)
    function["status"] = {"conditions": make_conditions(function, waiting, early)}
    broken = function_status.aspects(SPEC, None, knative({"ContainerHealthy": ("False", "ExitCode1", "x")}))
    times = {item["type"]: item["lastTransitionTime"] for item in make_conditions(function, broken, late)}
    assert times["ServiceReady"] == "2026-01-01T00:00:00Z"
    assert times["CodeReady"] == "2026-01-02T00:00:00Z"


def test_traffic_lists_revisions_with_a_share() -> None:
    """Tags without traffic are no targets."""
    service = {
        "status": {
            "url": "http://hello.media",
            "address": {"url": "http://hello.media.svc.cluster.local"},
            "latestReadyRevisionName": "hello-2",
            "traffic": [
                {"revisionName": "hello-2", "percent": 90},
                {"revisionName": "hello-1", "percent": 10},
                {"revisionName": "hello-0", "tag": "old"},
            ],
        }
    }
    fields = function_status.fields(SPEC, service)
    assert fields["traffic"] == [{"revision": "hello-2", "percent": 90}, {"revision": "hello-1", "percent": 10}]
    assert fields["revision"] == "hello-2"
    assert len(fields["codeSha256"]) == 64
