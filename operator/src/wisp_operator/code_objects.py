"""What code.zip and layers are compiled to: the Job that fetches them, its Secret, and what their digests mean to the pods.

Pure. Archives are named by their digests from the fetch on: a revision's template holds them, so the same bytes are the same
revision, and other bytes, be it behind the same key, are another one.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
from wisp_api import names
from wisp_api.code import READ, SECRET, WRITE, ArchiveTask, FetchTask, capability
from wisp_api.function import Archive, FetchedArchive, FunctionSpec

from wisp_operator import code_job
from wisp_operator.api import Object
from wisp_operator.apply import digest
from wisp_operator.code_job import COMPONENT, TOKEN_FOLDER, VOLUME_SIZE, Mounted
from wisp_operator.config import OperatorConfig

TASK: Final = "wisp.dev/fetch"
"""Annotation of a Job: hash of what it is to fetch."""
CODE_VARIABLE: Final = "WISP_CODE"
LAYERS_VARIABLE: Final = "WISP_LAYERS"


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
    """What the pods get, once all archives are in the store; a layer of requirements comes to it."""
    digests = [one.sha256 for one in found]
    code = digests.pop(0) if spec.code.zip else spec.code.stored.sha256 if spec.code.stored else ""
    return PodCode(f"{store}/v1/code/{namespace}", code, tuple(digests))


def add_code(pod: Object, code: PodCode) -> None:
    """Give a pod's only container its archives: room for them, their digests, and the right to read them."""
    container = pod["containers"][0]
    values = {"WISP_CODE_URL": code.url, CODE_VARIABLE: code.code, LAYERS_VARIABLE: ",".join(code.layers)}
    container["env"] += [{"name": name, "value": value} for name, value in values.items() if value]
    for name, path, wanted in (("task", "/var/task", code.code), ("opt", "/opt", code.layers)):
        if wanted:
            pod["volumes"].append({"name": name, "emptyDir": {"sizeLimit": VOLUME_SIZE}})
            container["volumeMounts"].append({"name": name, "mountPath": path})
    secret = {"secretName": SECRET, "items": [{"key": READ, "path": READ}]}
    pod["volumes"].append({"name": "code-token", "secret": secret})
    container["volumeMounts"].append({"name": "code-token", "mountPath": TOKEN_FOLDER, "readOnly": True})


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
    tasks = [_make_task(*pair) for pair in zip(wanted, known, strict=True)]
    task = FetchTask(namespace=meta["namespace"], store=config.store_url, archives=tasks)
    connections = sorted({one.connection.name for one in wanted})
    mounted = [
        Mounted(f"connection-{place}", name, f"/etc/wisp/connections/{name}") for place, name in enumerate(connections)
    ]
    job = code_job.make_job(function, owner, job_name(meta["name"]), config)
    job["metadata"]["annotations"] = {TASK: task_hash(wanted)}
    code_job.add_work(job, "fetch", "WISP_FETCH", msgspec.json.encode(task).decode(), mounted)
    return job


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
