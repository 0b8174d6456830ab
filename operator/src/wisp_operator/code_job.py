"""The Jobs of a tenant's namespace that bring code into the store, and their verdicts.

Pure. Such a Job has no token of the API and mounts the right to store code of its own namespace; everything else that it is to know
stands in one variable. Its verdict is its pod's termination message.
"""

import contextlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final, NamedTuple

import msgspec
from wisp_api import conditions, names
from wisp_api.code import SECRET, WRITE, FetchResult

from wisp_operator.api import Object
from wisp_operator.config import OperatorConfig
from wisp_operator.decoding import decode

COMPONENT: Final = "code"
JOB_POD: Final = "batch.kubernetes.io/job-name"
TOKEN_FOLDER: Final = "/etc/wisp/code"  # noqa: S105 - a path
VOLUME_SIZE: Final = "1Gi"
"""Of an archive, packed and unpacked; a bound for the node, the limit itself is 250 MiB."""
_DEADLINE_SECONDS: Final = 600


class Mounted(NamedTuple):
    """A Secret that a Job sees as a folder; it may be missing, of which the Job tells."""

    volume: str
    secret: str
    path: str


def make_job(function: Object, owner: Object, name: str, config: OperatorConfig) -> Object:
    """A Job for a Function, still without work."""
    meta = function["metadata"]
    labels = names.LABELS | {names.COMPONENT_LABEL: COMPONENT}
    pod: Object = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [{"image": config.events_image, "imagePullPolicy": config.image_pull_policy}],
    }
    if config.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in config.image_pull_secrets]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": meta["namespace"],
            "labels": labels | {names.FUNCTION_LABEL: meta["name"]},
            "ownerReferences": [owner],
        },
        "spec": {
            "backoffLimit": 0,  # it tries again by itself, and what it says at its end is the verdict
            "activeDeadlineSeconds": _DEADLINE_SECONDS,
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def add_work(
    job: Object,
    part: str,
    variable: str,
    task: str,
    mounted: Sequence[Mounted],
    *,
    cpu: str = "50m",
    memory: str = "256Mi",
    room: str = VOLUME_SIZE,
) -> None:
    """Give a Job's container its part of the image, its task, Secrets, CPU, memory and disk."""
    pod = job["spec"]["template"]["spec"]
    secrets = [*mounted, Mounted("token", SECRET, TOKEN_FOLDER)]
    pod["volumes"] = [_volume(one) for one in secrets] + [{"name": "tmp", "emptyDir": {"sizeLimit": room}}]
    pod["containers"][0] |= {
        "name": part,
        "args": [part],
        "env": [{"name": variable, "value": task}],
        "resources": {"requests": {"cpu": cpu, "memory": "64Mi"}, "limits": {"memory": memory}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [
            *({"name": one.volume, "mountPath": one.path, "readOnly": True} for one in secrets),
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the pod's own
        ],
    }


def _volume(mounted: Mounted) -> Object:
    source: Object = {"secretName": mounted.secret, "defaultMode": 0o440}
    needed: Object = {"items": [{"key": WRITE, "path": WRITE}]} if mounted.secret == SECRET else {"optional": True}
    return {"name": mounted.volume, "secret": source | needed}


def finished(job: Object) -> datetime | None:
    """When a Job ended, either way; None while it runs."""
    for state in job.get("status", {}).get("conditions", []):
        if state["type"] in {"Complete", "Failed"} and state["status"] == "True":
            return datetime.fromisoformat(state["lastTransitionTime"])
    return None


def read_result(
    job: Object, pods: Sequence[Object], count: int, otherwise: str = conditions.FETCH_FAILED
) -> FetchResult:
    """What a finished Job says of so many archives; the reason `otherwise` where its pod never came to its end."""
    for message in _messages(job, pods):
        with contextlib.suppress(msgspec.DecodeError):
            result = decode(message, FetchResult)
            if result.reason or len(result.archives) == count:
                return result
    reasons = [state for state in job.get("status", {}).get("conditions", []) if state["type"] == "Failed"]
    why = " ".join(f"{state.get('reason', '')}: {state.get('message', '')}" for state in reasons)
    name = job["metadata"]["name"]
    message = f"Job {name} ended without a verdict ({why or 'its pod is gone'}); kubectl describe job {name} tells more"
    return FetchResult(reason=otherwise, message=message)


def _messages(job: Object, pods: Sequence[Object]) -> Iterator[str]:
    for pod in pods:
        if any(owner.get("uid") == job["metadata"]["uid"] for owner in pod["metadata"].get("ownerReferences", [])):
            for container in pod.get("status", {}).get("containerStatuses", []):
                if message := container.get("state", {}).get("terminated", {}).get("message"):
                    yield message
