"""What spec.requirements is compiled to: a Job that builds a layer of it, named by all that the layer depends on.

Pure. The order of the list and its spaces don't matter, so functions of a namespace that want the same share Job and layer.
"""

from typing import Final

import msgspec
from wisp_api.code import BuildTask
from wisp_api.function import FunctionSpec

from wisp_operator import code_job
from wisp_operator.api import Object
from wisp_operator.apply import digest
from wisp_operator.code_job import Mounted
from wisp_operator.config import OperatorConfig

ARCHITECTURE: Final = "kubernetes.io/arch"
_TTL_SECONDS: Final = 600
"""How long a finished Job stays for people to look at; functions have its verdict in their status by then."""
_CPU: Final = "250m"
"""Its share where all are busy: someone waits, and a hundred megabytes are compiled and packed in less than its deadline."""
_MEMORY: Final = "1Gi"
_ROOM: Final = "2Gi"
"""Wheels, packed and unpacked, and the layer."""
_INDEX_FOLDER: Final = "/etc/wisp/index"


def wanted(spec: FunctionSpec) -> list[str]:
    """The requirements, each once and in order."""
    return sorted({_plain(one) for one in spec.requirements or []})


def build_key(spec: FunctionSpec, config: OperatorConfig) -> str:
    """Hash of all that the layer depends on, but for what the index offers at the time."""
    return digest([wanted(spec), spec.runtime, _architecture(spec), config.package_index_url])


def build_job_name(key: str) -> str:
    """Name of the Job for such a layer; a namespace has at most one at a time."""
    return f"wisp-build-{key}"


def make_build_job(function: Object, owner: Object, spec: FunctionSpec, config: OperatorConfig) -> Object:
    """The Job that resolves and builds a Function's requirements."""
    task = BuildTask(
        namespace=function["metadata"]["namespace"],
        store=config.store_url,
        index=config.package_index_url,
        secret=config.package_index_secret,
        requirements=wanted(spec),
    )
    job = code_job.make_job(function, owner, build_job_name(build_key(spec, config)), config)
    job["spec"]["ttlSecondsAfterFinished"] = _TTL_SECONDS
    index = Mounted("index", config.package_index_secret, _INDEX_FOLDER)
    told = msgspec.json.encode(task).decode()
    code_job.add_work(job, "build", "WISP_BUILD", told, [index], cpu=_CPU, memory=_MEMORY, room=_ROOM)
    pod = job["spec"]["template"]["spec"]
    if architecture := _architecture(spec):
        pod["nodeSelector"] = {ARCHITECTURE: architecture}
    if spec.pod and spec.pod.tolerations:
        pod["tolerations"] = msgspec.to_builtins(spec.pod.tolerations)
    return job


def _architecture(spec: FunctionSpec) -> str:
    """Of the nodes that the pods are bound to; empty where they may run on any."""
    return ((spec.pod.node_selector if spec.pod else None) or {}).get(ARCHITECTURE, "")


def _plain(requirement: str) -> str:
    """Without the spaces that don't count: those of a marker do."""
    package, separator, marker = requirement.partition(";")
    return "".join(package.split()) + (f" ; {' '.join(marker.split())}" if separator else "")
