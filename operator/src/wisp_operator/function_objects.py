"""A Function compiled to what Kubernetes runs: an immutable ConfigMap with the code and a Knative Service.

Pure: the same Function and configuration give the same objects. A revision's name is `<function>-<hash of the template>`,
and the template names the ConfigMap by the hash of the code: the same content is the same revision, changed content is a
new one, which Knative starts before it moves the traffic.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec
from wisp_api import names
from wisp_api.function import FunctionSpec, Scale
from wisp_api.kube import EnvVar

from wisp_operator.api import Object
from wisp_operator.apply import digest
from wisp_operator.client_image import add_to_client, brings_client, client_env, make_front, serves_itself
from wisp_operator.code_objects import PodCode, add_code
from wisp_operator.ingest_token import add_ingest_token
from wisp_operator.log_lines import add_log_lines
from wisp_operator.pod_volumes import add_volumes
from wisp_operator.quantities import canonical_cpu, mebibytes, millicpu, quantity
from wisp_operator.secret_files import add_secret_files

HASH_LENGTH: Final = 10
PROGRESS_SECONDS: Final = 120
"""How long a new revision may take to start, pulling its image included."""
AUTH_FILE: Final = "auth.json"
"""Key of the ConfigMap that says who may call."""
_AUTH_DIRECTORY: Final = "/etc/wisp/auth"
_ENV: Final = "wisp.dev/env"
_TASK_DIRECTORY: Final = "/var/task"
_MIB_PER_CPU: Final = 1769
_TIMEOUT_MARGIN: Final = 5
_KNATIVE_TIMEOUT: Final = 600
"""max-revision-timeout-seconds of a Knative that nobody configured; a margin is no reason to ask for more."""
_LIVENESS_PERIOD: Final = 10
_POD_FIELDS: Final = ("nodeSelector", "tolerations", "runtimeClassName", "imagePullSecrets")
_SECURITY_CONTEXT: Final[Object] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def make_owner_reference(function: Object) -> Object:
    """What makes an object go when the Function goes."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": "Function",
        "name": function["metadata"]["name"],
        "uid": function["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def make_labels(function: str) -> dict[str, str]:
    """Labels of everything that is made for a Function."""
    return names.LABELS | {names.COMPONENT_LABEL: "function", names.FUNCTION_LABEL: function}


def code_sha256(files: dict[str, str]) -> str:
    """SHA-256 over the files' names and texts."""
    return hashlib.sha256(msgspec.json.encode(files, order="deterministic")).hexdigest()


def auth_config_map_name(function: str) -> str:
    """Name of the ConfigMap that says who may call a Function."""
    return f"{function}-auth"


def _is_guarded(spec: FunctionSpec) -> bool:
    """Whether callers need a token."""
    return spec.auth is not None and spec.auth.type != "none"


def make_config_map(function: Object, files: dict[str, str]) -> Object:
    """The inline code. It never changes: pods of an old revision go on reading the old one."""
    meta = function["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": f"{meta['name']}-{code_sha256(files)[:HASH_LENGTH]}",
            "namespace": meta["namespace"],
            "labels": make_labels(meta["name"]),
            "ownerReferences": [make_owner_reference(function)],
        },
        "immutable": True,
        "data": files,
    }


LATEST: Final[list[Object]] = [{"latestRevision": True, "percent": 100}]
"""All requests go to the newest revision that has started."""


def make_knative_service(
    function: Object,
    spec: FunctionSpec,
    runtime_image: str,
    traffic: Sequence[Object] = LATEST,
    code: PodCode | None = None,
    *,
    log_lines_url: str = "",
    ingest_url: str = "",
    env: str = "",
) -> Object:
    """The Knative Service; `runtime_image` runs code that comes without an image, or beside one that speaks the Runtime API.

    `traffic`: which revisions serve; `code`: of the code store; `log_lines_url`: the ingest where it takes log lines, `ingest_url`: in any case;
    `env`: stands for values of ConfigMaps.
    """
    meta = function["metadata"]
    labels = make_labels(meta["name"])
    if spec.visibility == "cluster":
        labels["networking.knative.dev/visibility"] = "cluster-local"
    template = _make_template(function, spec, runtime_image)
    if code:
        add_code(template["spec"], code)
    if log_lines_url and not serves_itself(spec):
        add_log_lines(template["spec"], function, log_lines_url)
    if ingest_url and spec.service_account_name:
        add_ingest_token(template["spec"], ingest_url)
    add_secret_files(template["spec"], spec)
    template["metadata"]["annotations"] |= _rolled_by(meta, env)
    template["metadata"]["name"] = f"{meta['name']}-{digest(template)[:HASH_LENGTH]}"
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {
            "name": meta["name"],
            "namespace": meta["namespace"],
            "labels": labels,
            "ownerReferences": [make_owner_reference(function)],
        },
        "spec": {"template": template, "traffic": list(traffic)},
    }


def _make_template(function: Object, spec: FunctionSpec, runtime_image: str) -> Object:
    pod = msgspec.to_builtins(spec.pod) if spec.pod else {}
    pod_spec: Object = {
        "containers": _make_containers(function, spec, runtime_image),
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": quantity(spec.ephemeral_storage)}}],
        "timeoutSeconds": _knative_timeout(spec),
        "responseStartTimeoutSeconds": _knative_timeout(spec),
        "containerConcurrency": spec.scale.per_instance,
        "enableServiceLinks": False,
    }
    if spec.code.files is not None:
        source: Object = {"name": make_config_map(function, spec.code.files)["metadata"]["name"]}
        if spec.runtime == "provided":
            source["defaultMode"] = 0o555  # a bootstrap is executed
        pod_spec["volumes"].append({"name": "code", "configMap": source})
    if _is_guarded(spec):
        callers = {"name": auth_config_map_name(function["metadata"]["name"])}
        pod_spec["volumes"].append({"name": "auth", "configMap": callers})
    if spec.service_account_name:
        pod_spec["serviceAccountName"] = spec.service_account_name
    else:
        pod_spec["automountServiceAccountToken"] = False
    pod_spec |= {key: pod[key] for key in _POD_FIELDS if pod.get(key)}
    if spec.pod:
        add_volumes(pod_spec, spec.pod)
    return {
        "metadata": {
            "labels": pod.get("labels", {}) | make_labels(function["metadata"]["name"]),
            "annotations": pod.get("annotations", {}) | _scaling(spec.scale),
        },
        "spec": pod_spec,
    }


def _rolled_by(meta: Object, env: str) -> dict[str, str]:
    """What makes a new revision although spec and code are the same."""
    restarted = meta.get("annotations", {}).get(names.RESTARTED_ANNOTATION)
    return {name: value for name, value in ((names.RESTARTED_ANNOTATION, restarted), (_ENV, env)) if value}


def _knative_timeout(spec: FunctionSpec) -> int:
    """Seconds after which Knative ends a request: a little later than the runtime does it, whose answer says why and is marked as the function's."""
    if serves_itself(spec):
        return spec.timeout_seconds
    return max(spec.timeout_seconds, min(spec.timeout_seconds + _TIMEOUT_MARGIN, _KNATIVE_TIMEOUT))


def _scaling(scale: Scale) -> dict[str, str]:
    prefix = "autoscaling.knative.dev/"
    return {
        f"{prefix}min-scale": str(scale.min),
        f"{prefix}max-scale": str(scale.max),
        # A revision proves that it starts before it gets traffic, whatever the cluster's default.
        f"{prefix}initial-scale": "1",
        # Each instance may be filled: with Knative's 70 % one request at a time would already start a second pod.
        f"{prefix}target-utilization-percentage": "100",
        f"{prefix}window": f"{scale.idle_seconds}s",
        "serving.knative.dev/progress-deadline": f"{PROGRESS_SECONDS}s",
    }


def _make_containers(function: Object, spec: FunctionSpec, runtime_image: str) -> list[Object]:
    """The code's container, and before it the front where the code is in an image with a client of its own, which looks for it at once."""
    container = _make_container(function, spec, runtime_image)
    containers = [container]
    if brings_client(spec):
        add_to_client(container, spec)
        containers.insert(0, make_front(runtime_image, _platform_env(function, spec), _SECURITY_CONTEXT))
    if _is_guarded(spec):
        mount = {"name": "auth", "mountPath": _AUTH_DIRECTORY, "readOnly": True}
        containers[0].setdefault("volumeMounts", []).append(mount)
    return containers


def _make_container(function: Object, spec: FunctionSpec, runtime_image: str) -> Object:
    memory = mebibytes(spec.memory)
    cpu = millicpu(spec.cpu) if spec.cpu else -(-memory * 1000 // _MIB_PER_CPU)
    told = client_env(function, spec, memory) if brings_client(spec) else _platform_env(function, spec)
    container: Object = {
        "name": "function",
        "image": spec.code.image or runtime_image,
        "env": told + [_make_env(variable) for variable in spec.env or []],
        "resources": {
            "requests": {"cpu": canonical_cpu(cpu), "memory": quantity(spec.memory)},
            "limits": {"memory": quantity(spec.memory)},
        },
        "securityContext": _SECURITY_CONTEXT,
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - the pod's own
    }
    if not serves_itself(spec):
        # No period: Knative's queue-proxy then probes every few milliseconds, which is what makes a cold start short.
        health = {"httpGet": {"path": "/_wisp/health", "port": 0}, "successThreshold": 1}
        container["readinessProbe"] = health
        # The runtime ends what runs too long by itself; only code that never lets Python run again needs this, so it waits for longer.
        failures = -(-spec.timeout_seconds // _LIVENESS_PERIOD) + 2
        liveness = {"periodSeconds": _LIVENESS_PERIOD, "timeoutSeconds": 5, "failureThreshold": failures}
        container["livenessProbe"] = health | liveness
    if spec.code.files is not None:
        container["volumeMounts"].append({"name": "code", "mountPath": _TASK_DIRECTORY, "readOnly": True})
    if spec.env_from:
        container["envFrom"] = [_without_empty(msgspec.to_builtins(source)) for source in spec.env_from]
    return container


def _platform_env(function: Object, spec: FunctionSpec) -> list[Object]:
    values = {
        "WISP_FUNCTION": function["metadata"]["name"],
        "WISP_NAMESPACE": function["metadata"]["namespace"],
        "WISP_TIMEOUT_SECONDS": str(spec.timeout_seconds),
        "WISP_MEMORY_MB": str(mebibytes(spec.memory)),
        "WISP_CONCURRENCY": str(spec.scale.per_instance),
    }
    if spec.isolation != "worker":
        values["WISP_ISOLATION"] = spec.isolation
    if spec.log_format != "json":
        values["WISP_LOG_FORMAT"] = spec.log_format
    if _is_guarded(spec):
        values["WISP_AUTH_FILE"] = f"{_AUTH_DIRECTORY}/{AUTH_FILE}"
    if spec.handler:
        values |= {"WISP_HANDLER": spec.handler, "WISP_SIGNATURE": spec.signature}
    return [{"name": name, "value": value} for name, value in values.items()]


def _make_env(variable: EnvVar) -> Object:
    made: Object = _without_empty(msgspec.to_builtins(variable))
    return made


def _without_empty(value: Object) -> Object:
    """Without what Go's encoding leaves out as well: empty texts and absent fields."""
    kept = {key: _without_empty(item) if isinstance(item, dict) else item for key, item in value.items()}
    return {key: item for key, item in kept.items() if item not in ("", None)}
