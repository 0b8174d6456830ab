"""What code.zip and layers are compiled to: the Job that fetches them, its Secret, and what their digests mean to the pods.

Pure. Archives are named by their digests from the fetch on: a revision's template holds them, so the same bytes are the same
revision, and other bytes, be it behind the same key, are another one.
"""

import contextlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final, NamedTuple

import msgspec
from wisp_api import conditions, names
from wisp_api.code import READ, SECRET, WRITE, ArchiveTask, FetchResult, FetchTask, capability
from wisp_api.function import Archive, FetchedArchive, FunctionSpec

from wisp_operator.api import Object
from wisp_operator.apply import digest
from wisp_operator.config import OperatorConfig

COMPONENT: Final = "code"
TASK: Final = "wisp.dev/fetch"
"""Annotation of a Job: hash of what it is to fetch."""
JOB_POD: Final = "batch.kubernetes.io/job-name"
CODE_VARIABLE: Final = "WISP_CODE"
LAYERS_VARIABLE: Final = "WISP_LAYERS"
_DEADLINE_SECONDS: Final = 600
_VOLUME_SIZE: Final = "1Gi"
"""Of an archive, packed and unpacked; a bound for the node, the limit itself is 250 MiB."""
_TOKEN_FOLDER: Final = "/etc/wisp/code"  # noqa: S105 - a path


class PodCode(NamedTuple):
    """The archives of a revision, by their digests."""

    url: str
    """The namespace's place in the store."""
    code: str
    """Empty where the code is inline."""
    layers: tuple[str, ...]

    @property
    def digests(self) -> set[str]:
        """All of them."""
        return {*self.layers, *([self.code] if self.code else [])}


def sources(spec: FunctionSpec) -> list[Archive]:
    """The archives that a Function names: its code first, then its layers in order."""
    return [*([spec.code.zip] if spec.code.zip else []), *(spec.layers or [])]


def make_pod_code(namespace: str, spec: FunctionSpec, found: Sequence[FetchedArchive], store: str) -> PodCode:
    """What the pods get, once all archives are in the store."""
    digests = [one.sha256 for one in found]
    code = digests.pop(0) if spec.code.zip else ""
    return PodCode(f"{store}/v1/code/{namespace}", code, tuple(digests))


def add_code(pod: Object, code: PodCode) -> None:
    """Give a pod's only container its archives: room for them, their digests, and the right to read them."""
    container = pod["containers"][0]
    values = {"WISP_CODE_URL": code.url, CODE_VARIABLE: code.code, LAYERS_VARIABLE: ",".join(code.layers)}
    container["env"] += [{"name": name, "value": value} for name, value in values.items() if value]
    for name, path, wanted in (("task", "/var/task", code.code), ("opt", "/opt", code.layers)):
        if wanted:
            pod["volumes"].append({"name": name, "emptyDir": {"sizeLimit": _VOLUME_SIZE}})
            container["volumeMounts"].append({"name": name, "mountPath": path})
    secret = {"secretName": SECRET, "items": [{"key": READ, "path": READ}]}
    pod["volumes"].append({"name": "code-token", "secret": secret})
    container["volumeMounts"].append({"name": "code-token", "mountPath": _TOKEN_FOLDER, "readOnly": True})


def used_digests(template: Object) -> set[str]:
    """The archives that a pod template, or a Revision's spec, names."""
    return {
        one
        for container in template.get("containers", [])
        for variable in container.get("env", [])
        if variable["name"] in {CODE_VARIABLE, LAYERS_VARIABLE}
        for one in variable.get("value", "").split(",")
        if one
    }


def make_secret(namespace: str, key: str) -> Object:
    """A namespace's capabilities for its own code."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": SECRET,
            "namespace": namespace,
            "labels": names.LABELS | {names.COMPONENT_LABEL: COMPONENT},
        },
        "type": "Opaque",
        "stringData": {right: capability(key, right, namespace) for right in (READ, WRITE)},
    }


def job_name(function: str) -> str:
    """Name of a Function's fetch Job; a Function has at most one."""
    return f"wisp-code-{function}"


def task_hash(wanted: Sequence[Archive]) -> str:
    """What tells a Job for these archives from one for others."""
    return digest([msgspec.to_builtins(one) for one in wanted])


def make_job(
    function: Object,
    owner: Object,
    wanted: Sequence[Archive],
    known: Sequence[FetchedArchive | None],
    config: OperatorConfig,
) -> Object:
    """The Job that fetches a Function's archives; `known` is what they were last time."""
    meta = function["metadata"]
    labels = names.LABELS | {names.COMPONENT_LABEL: COMPONENT}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(meta["name"]),
            "namespace": meta["namespace"],
            "labels": labels | {names.FUNCTION_LABEL: meta["name"]},
            "annotations": {TASK: task_hash(wanted)},
            "ownerReferences": [owner],
        },
        "spec": {
            "backoffLimit": 0,  # it tries again by itself, and what it says at its end is the verdict
            "activeDeadlineSeconds": _DEADLINE_SECONDS,
            "template": {"metadata": {"labels": labels}, "spec": _make_pod(meta["namespace"], wanted, known, config)},
        },
    }


def _make_pod(
    namespace: str, wanted: Sequence[Archive], known: Sequence[FetchedArchive | None], config: OperatorConfig
) -> Object:
    tasks = [_make_task(*pair) for pair in zip(wanted, known, strict=True)]
    task = FetchTask(namespace=namespace, store=config.store_url, archives=tasks)
    connections = sorted({one.connection.name for one in wanted})
    volumes = [
        {"name": f"connection-{place}", "secret": {"secretName": name, "defaultMode": 0o440, "optional": True}}
        for place, name in enumerate(connections)
    ]
    mounts = [
        {"name": f"connection-{place}", "mountPath": f"/etc/wisp/connections/{name}", "readOnly": True}
        for place, name in enumerate(connections)
    ]
    token = {"secretName": SECRET, "defaultMode": 0o440, "items": [{"key": WRITE, "path": WRITE}]}
    container = {
        "name": "fetch",
        "image": config.events_image,
        "imagePullPolicy": config.image_pull_policy,
        "args": ["fetch"],
        "env": [{"name": "WISP_FETCH", "value": msgspec.json.encode(task).decode()}],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [
            *mounts,
            {"name": "token", "mountPath": _TOKEN_FOLDER, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the pod's own
        ],
    }
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
        "containers": [container],
        "volumes": [
            *volumes,
            {"name": "token", "secret": token},
            {"name": "tmp", "emptyDir": {"sizeLimit": _VOLUME_SIZE}},
        ],
    }
    if config.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in config.image_pull_secrets]
    return pod


def _make_task(wanted: Archive, known: FetchedArchive | None) -> ArchiveTask:
    return ArchiveTask(
        bucket=wanted.bucket,
        key=wanted.key,
        connection=wanted.connection.name,
        version_id=wanted.version_id or "",
        sha256=wanted.sha256 or "",
        etag=known.etag if known else "",
        fetched=known.sha256 if known else "",
        unpacked=known.unpacked_bytes if known else 0,
    )


def finished(job: Object) -> datetime | None:
    """When a Job ended, either way; None while it runs."""
    for state in job.get("status", {}).get("conditions", []):
        if state["type"] in {"Complete", "Failed"} and state["status"] == "True":
            return datetime.fromisoformat(state["lastTransitionTime"])
    return None


def read_result(job: Object, pods: Sequence[Object], count: int) -> FetchResult:
    """What a finished Job found of so many archives; the pod's termination message says it, unless the pod never came to its end."""
    for message in _messages(job, pods):
        with contextlib.suppress(msgspec.DecodeError):
            result = msgspec.json.decode(message, type=FetchResult)
            if result.reason or len(result.archives) == count:
                return result
    reasons = [state for state in job.get("status", {}).get("conditions", []) if state["type"] == "Failed"]
    why = " ".join(f"{state.get('reason', '')}: {state.get('message', '')}" for state in reasons)
    name = job["metadata"]["name"]
    message = f"Job {name} ended without a verdict ({why or 'its pod is gone'}); kubectl describe job {name} tells more"
    return FetchResult(reason=conditions.FETCH_FAILED, message=message)


def _messages(job: Object, pods: Sequence[Object]) -> Iterator[str]:
    for pod in pods:
        if any(owner.get("uid") == job["metadata"]["uid"] for owner in pod["metadata"].get("ownerReferences", [])):
            for container in pod.get("status", {}).get("containerStatuses", []):
                if message := container.get("state", {}).get("terminated", {}).get("message"):
                    yield message
