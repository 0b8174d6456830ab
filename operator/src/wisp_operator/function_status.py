"""What a Function's status says, worked out of its Knative Service and newest Revision.

Pure. Knative's own texts come through, because they hold the cause (the runtime's termination message, the registry's
answer); around them stand a constant reason, the field to look at, and the cure.
"""

from typing import Any, Final

from wisp_api import conditions
from wisp_api.function import FunctionSpec

from wisp_operator.api import ApiError, Object
from wisp_operator.function_objects import PROGRESS_SECONDS, code_sha256
from wisp_operator.status import FALSE, TRUE, Aspect, mark_false, mark_true, mark_unknown

_PULL_REASONS: Final = {
    "ContainerMissing",
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "RegistryUnavailable",
}
_CONFIG_REASONS: Final = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError"}
_EXIT_PREFIX: Final = "Container failed with: "
_SERVER_ERROR: Final = 500


def aspects(spec: FunctionSpec, service: Object | None, revision: Object | None) -> dict[str, Aspect]:
    """CodeReady and ServiceReady; `revision` is the one that the Function's current template makes, None until Knative made it."""
    code = _code_aspect(spec, revision)
    return {conditions.CODE_READY: code, conditions.SERVICE_READY: _service_aspect(code, service)}


def refused(error: ApiError) -> dict[str, Aspect]:
    """The aspects where Knative or the API refused the Service."""
    code = mark_unknown(conditions.DEPLOYING, "not tried yet: the Knative Service could not be written")
    return {conditions.CODE_READY: code, conditions.SERVICE_READY: _refusal(error)}


def invalid(reason: str, message: str) -> dict[str, Aspect]:
    """The aspects where the Function can't be compiled at all."""
    return {
        conditions.CODE_READY: mark_false(reason, message),
        conditions.SERVICE_READY: mark_unknown(reason, "waits for a Function that can be deployed"),
    }


def not_owned(name: str) -> dict[str, Aspect]:
    """The aspects where a Knative Service of that name belongs to someone else."""
    message = (
        f"a Knative Service {name} exists that is not this Function's: delete it, or give the Function another name"
    )
    return {
        conditions.CODE_READY: mark_unknown(conditions.NOT_OWNED, "not tried: see ServiceReady"),
        conditions.SERVICE_READY: mark_false(conditions.NOT_OWNED, message),
    }


def fields(spec: FunctionSpec | None, service: Object | None) -> dict[str, Any]:
    """The rest of the status; None takes a field away."""
    state = (service or {}).get("status", {})
    traffic = [
        {"revision": target["revisionName"], "percent": target.get("percent", 0)}
        for target in state.get("traffic", [])
        if target.get("revisionName") and target.get("percent")
    ]
    files = spec.code.files if spec else None
    return {
        "url": state.get("url"),
        "address": {"url": state["address"]["url"]} if state.get("address", {}).get("url") else None,
        "revision": state.get("latestReadyRevisionName"),
        "traffic": traffic or None,
        "codeSha256": code_sha256(files) if files else None,
    }


def _code_aspect(spec: FunctionSpec, revision: Object | None) -> Aspect:
    waiting = mark_unknown(conditions.DEPLOYING, "a first pod of the new revision is starting")
    if revision is None:
        return waiting
    states = _conditions(revision)
    healthy, resources, ready = (states.get(kind, {}) for kind in ("ContainerHealthy", "ResourcesAvailable", "Ready"))
    if healthy.get("status") == TRUE or ready.get("status") == TRUE:
        return mark_true()
    if healthy.get("status") == FALSE:
        return _unhealthy(spec, healthy)
    if resources.get("status") == FALSE:
        return _unavailable(spec, resources)
    if ready.get("status") == FALSE:
        return mark_false(conditions.REVISION_FAILED, f"{ready.get('reason', '')}: {ready.get('message', '')}")
    return waiting


def _unhealthy(spec: FunctionSpec, state: Object) -> Aspect:
    """A container that started and ended, or whose image isn't there."""
    message = state.get("message", "")
    if state.get("reason") in _PULL_REASONS:
        return _image(spec, message)
    text = message.removeprefix(_EXIT_PREFIX).strip()
    if text.startswith("Runtime."):
        return mark_false(
            conditions.HANDLER_IMPORT_FAILED,
            f"spec.handler {spec.handler}: {text}\nCorrect spec.handler or spec.code; an older revision that works keeps serving.",
        )
    reason = state.get("reason", "")
    shown = text or "nothing in its termination message"
    return mark_false(
        conditions.CONTAINER_EXITED,
        f"the container of spec.code ended while starting ({reason}): {shown}. Its log: kubectl logs",
    )


def _unavailable(spec: FunctionSpec, state: Object) -> Aspect:
    """A pod that could not start its container."""
    reason, message = state.get("reason", ""), state.get("message", "")
    if reason in _PULL_REASONS:
        return _image(spec, message)
    if reason in _CONFIG_REASONS:
        return mark_false(
            conditions.CONTAINER_CONFIG_INVALID,
            f"{message or reason}. Check the Secrets and ConfigMaps that spec.env and spec.envFrom name, and that the image runs as a numeric non-root user.",
        )
    if reason == "Unschedulable":
        return mark_false(
            conditions.UNSCHEDULABLE,
            f"no node takes the pod: {message} Lower spec.memory or spec.cpu, or see spec.pod.nodeSelector and tolerations.",
        )
    if reason == "ProgressDeadlineExceeded":
        return mark_false(
            conditions.START_TIMEOUT,
            f"no pod was ready within {PROGRESS_SECONDS} s: {message} The handler must be imported within that time; kubectl describe pod tells more.",
        )
    return mark_false(conditions.REVISION_FAILED, f"{reason}: {message}")


def _image(spec: FunctionSpec, message: str) -> Aspect:
    where = f"spec.code.image {spec.code.image}" if spec.code.image else f"the image of spec.runtime {spec.runtime}"
    return mark_false(
        conditions.IMAGE_PULL_FAILED,
        f"{where} can't be pulled: {message} Check the name and tag; a private registry needs spec.pod.imagePullSecrets.",
    )


def _service_aspect(code: Aspect, service: Object | None) -> Aspect:
    if service is None or not _current(service):
        return mark_unknown(conditions.DEPLOYING, "Knative has not taken the change up yet")
    states = _conditions(service)
    ready, route = states.get("Ready", {}), states.get("RoutesReady", {})
    if ready.get("status") == TRUE:
        return mark_true()
    if code.status != TRUE:
        return mark_unknown(conditions.DEPLOYING, "waits for CodeReady")
    if route.get("status") == FALSE:
        message = f"{route.get('reason', '')}: {route.get('message', '')}. Look at the cluster's Knative ingress."
        return mark_false(conditions.ROUTE_NOT_READY, message)
    if ready.get("status") == FALSE:
        return mark_false(conditions.REVISION_FAILED, f"{ready.get('reason', '')}: {ready.get('message', '')}")
    return mark_unknown(conditions.DEPLOYING, ready.get("message") or "the route is being set up")


def _refusal(error: ApiError) -> Aspect:
    text = str(error)
    if error.unknown_kind:
        return mark_false(
            conditions.KNATIVE_MISSING,
            "this cluster has no Knative Serving (services.serving.knative.dev): install it; the Function then deploys by itself",
        )
    if error.status >= _SERVER_ERROR:
        return mark_unknown(
            conditions.KNATIVE_UNAVAILABLE, f"the Knative Service can't be written now and is tried again: {text}"
        )
    if "timeoutSeconds" in text:
        return mark_false(
            conditions.TIMEOUT_TOO_LONG,
            "spec.timeoutSeconds is above what this cluster allows: lower it, or raise max-revision-timeout-seconds "
            f"in ConfigMap config-defaults of namespace knative-serving. Knative says: {text}",
        )
    return mark_false(
        conditions.SERVICE_REFUSED, f"Knative refused the Service; correct the field of spec that it names: {text}"
    )


def _current(service: Object) -> bool:
    """Whether the Service's status speaks of its present spec."""
    return bool(service.get("status", {}).get("observedGeneration") == service["metadata"].get("generation"))


def _conditions(item: Object) -> dict[str, Object]:
    return {state["type"]: state for state in item.get("status", {}).get("conditions", [])}
