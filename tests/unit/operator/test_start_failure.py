"""What a pod says becomes CodeReady at once, and nothing is said of pods that are well."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from fixtures.objects import make_function
from wisp_api.function import FunctionSpec
from wisp_operator import start_failure

SPEC = msgspec.convert(make_function(code={"image": "registry.example/gone:1"})["spec"], FunctionSpec)
TRACEBACK = "Runtime.ImportModuleError: No module named 'foo'\n  File \"/var/task/app.py\", line 1, in <module>\n"
ENDED = {"terminated": {"reason": "Error", "exitCode": 1, "message": TRACEBACK}}


def pod(state: dict[str, Any], last: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """A pod whose function container is in this state, beside Knative's own container that is ready."""
    container = {"name": "function", "ready": False, "state": state, "lastState": last or {}} | fields
    platform = {"name": "queue-proxy", "ready": False, "state": {"waiting": {"reason": "ErrImagePull"}}}
    metadata = {"name": "pod", "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"metadata": metadata, "status": {"containerStatuses": [platform, container]}}


def unscheduled() -> dict[str, Any]:
    """A pod that no node takes."""
    state = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/1 nodes are available.",
    }
    return {"metadata": {"name": "pod"}, "status": {"conditions": [state]}}


@pytest.mark.parametrize(
    ("case", "given", "reason", "words"),
    [
        (
            "crashed",
            pod(ENDED),
            "HandlerImportFailed",
            ["spec.handler app.handler", "No module named", "/var/task/app.py"],
        ),
        (
            "between two crashes",
            pod({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}, ENDED),
            "HandlerImportFailed",
            ["No module named"],
        ),
        ("starting once more", pod({"running": {}}, ENDED), "HandlerImportFailed", ["No module named"]),
        ("no message", pod({"terminated": {"reason": "Error", "exitCode": 3}}), "ContainerExited", ["ExitCode3"]),
        (
            "too little memory",
            pod({"terminated": {"reason": "OOMKilled", "exitCode": 137}}),
            "OutOfMemory",
            ["128Mi", "raise spec.memory"],
        ),
        (
            "no such image",
            pod({"waiting": {"reason": "ErrImagePull", "message": "404 Not Found"}}),
            "ImagePullFailed",
            ["registry.example/gone:1", "404 Not Found", "imagePullSecrets"],
        ),
        (
            "missing Secret",
            pod({"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "s" not found'}}),
            "ContainerConfigInvalid",
            ['secret "s" not found', "spec.env"],
        ),
        ("no node", unscheduled(), "Unschedulable", ["0/1 nodes", "spec.memory"]),
    ],
)
def test_trouble(case: str, given: dict[str, Any], reason: str, words: list[str]) -> None:
    """Each way not to start has a constant reason and says what to do."""
    told = start_failure.from_pods(SPEC, [given])
    assert told, case
    assert (told.status, told.reason) == ("False", reason), case
    for word in words:
        assert word in told.message, case


@pytest.mark.parametrize(
    ("case", "given"),
    [
        ("pulling", pod({"waiting": {"reason": "ContainerCreating"}})),
        ("importing", pod({"running": {}})),
        ("ready after a crash", pod({"running": {}}, ENDED, ready=True)),
        ("going", pod(ENDED) | {"metadata": {"name": "pod", "deletionTimestamp": "2026-01-01T00:00:00Z"}}),
        ("new", {"metadata": {"name": "pod"}}),
    ],
)
def test_no_trouble(case: str, given: dict[str, Any]) -> None:
    """Pods on their way, that are well again or that go say nothing."""
    assert start_failure.from_pods(SPEC, [given]) is None, case


def test_looks_often_at_first() -> None:
    """The pods of a young revision are read every second, those of an old one every 30 s."""
    revision = {"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}}
    made = datetime(2026, 1, 1, tzinfo=UTC)
    waits = [start_failure.next_look(revision, made + timedelta(seconds=age)) for age in (-5, 0, 20, 4000)]
    assert waits == [1, 1, 5, 30]
