"""What a Function's status says, worked out of its Knative Service, its newest Revision and that one's pods.

Pure. Knative's own texts come through, because they hold the cause (the runtime's termination message, the registry's
answer); around them stand a constant reason, the field to look at, and the cure.
"""

from collections.abc import Sequence
from typing import Any, Final

from wisp_api import conditions
from wisp_api.function import FunctionSpec

from wisp_operator import start_failure
from wisp_operator.api import ApiError, Object
from wisp_operator.function_objects import code_sha256
from wisp_operator.status import FALSE, TRUE, Aspect, mark_false, mark_true, mark_unknown

_SERVER_ERROR: Final = 500
_FLAGS: Final = {
    "spec.template.spec.runtimeClassName": "kubernetes.podspec-runtimeclassname",
    "spec.template.spec.nodeSelector": "kubernetes.podspec-nodeselector",
    "spec.template.spec.tolerations": "kubernetes.podspec-tolerations",
    "Persistent volume claim support is disabled": "kubernetes.podspec-persistent-volume-claim",
    "Persistent volume write support is disabled": "kubernetes.podspec-persistent-volume-write",
    "EmptyDir volume support is disabled": "kubernetes.podspec-volumes-emptydir",
}
"""What Knative says of a part of the pod that a flag of its own allows."""


def aspects(
    spec: FunctionSpec,
    service: Object | None,
    revision: Object | None,
    pods: Sequence[Object] = (),
    rollout: Aspect | None = None,
    *,
    warning: Aspect | None = None,
) -> dict[str, Aspect]:
    """CodeReady and ServiceReady; `revision` is the one that the Function's current template makes, None until Knative made it, `pods` are its own.

    `rollout` is what is to be said of the shares where Knative has nothing against the Service, `warning` what of code that is ready.
    """
    code = _code_aspect(spec, revision, pods)
    if warning and code.status == TRUE:
        code = warning
    served = _service_aspect(code, service)
    if rollout and (served.status == TRUE or rollout.status == FALSE):
        served = rollout
    return {conditions.CODE_READY: code, conditions.SERVICE_READY: served}


def refused(error: ApiError) -> dict[str, Aspect]:
    """The aspects where Knative or the API refused the Service."""
    service = _refusal(error)
    code = mark_unknown(conditions.DEPLOYING, f"not tried yet: {service.message}")
    return {conditions.CODE_READY: code, conditions.SERVICE_READY: service}


def invalid(reason: str, message: str) -> dict[str, Aspect]:
    """The aspects where the Function can't be compiled at all."""
    return {
        conditions.CODE_READY: mark_false(reason, message),
        conditions.SERVICE_READY: mark_unknown(reason, "waits for a Function that can be deployed"),
    }


def without_code(code: Aspect) -> dict[str, Aspect]:
    """The aspects where the archives can't be had (yet): nothing is deployed, and what serves goes on."""
    return {
        conditions.CODE_READY: code,
        conditions.SERVICE_READY: mark_unknown(conditions.DEPLOYING, "waits for CodeReady"),
    }


def not_owned(name: str, kind: str = "Knative Service") -> dict[str, Aspect]:
    """The aspects where an object of that name belongs to someone else."""
    message = f"a {kind} {name} exists that is not this Function's: delete it, or give the Function another name"
    return {
        conditions.CODE_READY: mark_unknown(conditions.NOT_OWNED, "not tried: see ServiceReady"),
        conditions.SERVICE_READY: mark_false(conditions.NOT_OWNED, message),
    }


def over_quota(message: str) -> dict[str, Aspect]:
    """The aspects where the namespace's quota has no room: nothing is changed, and what serves goes on."""
    return {
        conditions.CODE_READY: mark_unknown(conditions.DEPLOYING, "not tried yet: see ServiceReady"),
        conditions.SERVICE_READY: mark_false(conditions.QUOTA_EXCEEDED, message),
    }


def keys_unavailable(error: ApiError) -> dict[str, Aspect]:
    """The aspects where nobody can say whose tokens callers may show."""
    message = (
        f"auth can't be set up, because the keys of callers' tokens can't be read, and is tried again: {error}. "
        "The operator reads /openid/v1/jwks of the API server, and the Secret wisp-caller-keys of its own namespace."
    )
    return {
        conditions.CODE_READY: mark_unknown(conditions.DEPLOYING, "not tried yet: see ServiceReady"),
        conditions.SERVICE_READY: mark_unknown(conditions.CALLER_KEYS_UNAVAILABLE, message),
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
    tags = {target["tag"]: target["url"] for target in state.get("traffic", []) if "tag" in target and "url" in target}
    return {
        "url": state.get("url"),
        "address": {"url": state["address"]["url"]} if state.get("address", {}).get("url") else None,
        "revision": state.get("latestReadyRevisionName"),
        "traffic": traffic or None,
        "codeSha256": code_sha256(files) if files else None,
        "tags": tags or None,
    }


def _code_aspect(spec: FunctionSpec, revision: Object | None, pods: Sequence[Object]) -> Aspect:
    waiting = mark_unknown(conditions.DEPLOYING, "a first pod of the new revision is starting")
    if revision is None:
        return waiting
    if started(revision):
        return mark_true()
    if told := start_failure.from_pods(spec, pods):
        return told
    return _knatives_word(spec, _conditions(revision)) or waiting


def _knatives_word(spec: FunctionSpec, states: dict[str, Object]) -> Aspect | None:
    """What Knative itself holds against the revision."""
    for kind in ("ContainerHealthy", "ResourcesAvailable", "Ready"):
        state = states.get(kind, {})
        if state.get("status") == FALSE:
            reason, message = state.get("reason", ""), state.get("message", "")
            if found := start_failure.explain(spec, reason, message):
                return found
            if kind == "ContainerHealthy":
                return start_failure.exited(spec, reason, message)
            return mark_false(conditions.REVISION_FAILED, f"{reason}: {message}")
    return None


def started(revision: Object) -> bool:
    """Whether a revision's first pod has been ready at some time."""
    states = _conditions(revision)
    return any(states.get(kind, {}).get("status") == TRUE for kind in ("ContainerHealthy", "Ready"))


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
    if "unknown field" in text:  # Knative decodes strictly, and what is written to it has no field of the user's naming
        return mark_false(
            conditions.KNATIVE_TOO_OLD,
            "this cluster's Knative Serving doesn't know a field that the platform needs: upgrade it to a release for this "
            f"Kubernetes; the Function then deploys by itself. Knative says: {text}",
        )
    if "timeoutSeconds" in text:
        return mark_false(
            conditions.TIMEOUT_TOO_LONG,
            "spec.timeoutSeconds is above what this cluster allows: lower it, or raise max-revision-timeout-seconds "
            f"in ConfigMap config-defaults of namespace knative-serving. Knative says: {text}",
        )
    if flags := _flags(text):
        return mark_false(
            conditions.FEATURE_DISABLED,
            "spec.pod asks for what this cluster's Knative doesn't allow: take it away, or have the cluster's administrator write "
            f"{', '.join(flags)} into ConfigMap config-features of namespace knative-serving. Knative says: {text}",
        )
    return mark_false(
        conditions.SERVICE_REFUSED, f"Knative refused the Service; correct the field of spec that it names: {text}"
    )


def _flags(text: str) -> list[str]:
    """What of Knative's configuration would allow what it refused."""
    if "must not set the field" not in text and "support is disabled" not in text:
        return []
    return [f"{flag}: enabled" for sign, flag in _FLAGS.items() if sign in text]


def _current(service: Object) -> bool:
    """Whether the Service's status speaks of its present spec."""
    return bool(service.get("status", {}).get("observedGeneration") == service["metadata"].get("generation"))


def _conditions(item: Object) -> dict[str, Object]:
    return {state["type"]: state for state in item.get("status", {}).get("conditions", [])}
