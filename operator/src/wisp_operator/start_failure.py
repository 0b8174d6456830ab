"""Why a revision does not start, worked out of what Knative says of it and, long before that, of what its pods say.

Pure. Knative tells only when its progress deadline is over; the kubelet writes each failure into the pod at once. Both use the
same reasons, so one table serves both. Invariant: a container that is ready says nothing, so no failure outlives its cause.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Final

from wisp_api import conditions
from wisp_api.function import FunctionSpec

from wisp_operator.api import Object
from wisp_operator.function_objects import PROGRESS_SECONDS
from wisp_operator.status import FALSE, Aspect, mark_false

_PULL_REASONS: Final = {
    "ContainerMissing",
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
}
_CONFIG_REASONS: Final = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError"}
_EXIT_PREFIX: Final = "Container failed with: "
_PLATFORM_CONTAINER: Final = "queue-proxy"
_SHORTEST_WAIT: Final = 1.0
_LONGEST_WAIT: Final = 30.0


def explain(spec: FunctionSpec, reason: str, message: str) -> Aspect | None:
    """CodeReady for a reason of the kubelet, the scheduler or Knative; None for one that is not known."""
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
    return None


def exited(spec: FunctionSpec, reason: str, message: str) -> Aspect:
    """CodeReady for a container that started and ended; the runtime's termination message begins with `Runtime.` and holds the user's traceback."""
    text = message.removeprefix(_EXIT_PREFIX).strip()
    if reason == "OOMKilled":
        return mark_false(
            conditions.OUT_OF_MEMORY,
            f"the code needs more than {spec.memory} while it starts: raise spec.memory. {text}",
        )
    if text.startswith("Runtime.Code"):
        return mark_false(conditions.CODE_UNAVAILABLE, f"a pod can't get its code: {text}")
    if text.startswith("Runtime."):
        return mark_false(
            conditions.HANDLER_IMPORT_FAILED,
            f"spec.handler {spec.handler}: {text}\nCorrect spec.handler or spec.code; an older revision that works keeps serving.",
        )
    shown = text or "nothing in its termination message"
    return mark_false(
        conditions.CONTAINER_EXITED,
        f"the container of spec.code ended while starting ({reason}): {shown}. Its log: kubectl logs",
    )


def from_pods(spec: FunctionSpec, pods: Iterable[Object]) -> Aspect | None:
    """What keeps a revision's pods from being ready, the youngest pod's first; None where they say nothing (yet)."""
    young_first = sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp")), reverse=True)
    for pod in young_first:
        if "deletionTimestamp" not in pod["metadata"] and (found := next(_failures(spec, pod), None)):
            return found
    return None


def next_look(revision: Object, now: datetime) -> float:
    """In how many seconds to read the pods of a revision that isn't ready again: soon while it is young, since nothing tells of their changes."""
    age = (now - datetime.fromisoformat(revision["metadata"]["creationTimestamp"])).total_seconds()
    return min(max(age / 4, _SHORTEST_WAIT), _LONGEST_WAIT)


def _failures(spec: FunctionSpec, pod: Object) -> Iterator[Aspect]:
    status = pod.get("status", {})
    for state in status.get("conditions", []):
        unscheduled = state["type"] == "PodScheduled" and state["status"] == FALSE
        if unscheduled and (found := explain(spec, state.get("reason", ""), state.get("message", ""))):
            yield found
    for container in status.get("containerStatuses", []):
        if container["name"] != _PLATFORM_CONTAINER and not container.get("ready"):
            yield from _container_failures(spec, container)


def _container_failures(spec: FunctionSpec, container: Object) -> Iterator[Aspect]:
    state = container.get("state", {})
    waiting = state.get("waiting", {})
    if found := explain(spec, waiting.get("reason", ""), waiting.get("message", "")):
        yield found
    if ended := state.get("terminated") or container.get("lastState", {}).get("terminated"):
        reason = ended.get("reason", "")
        code = reason if reason == "OOMKilled" else f"ExitCode{ended.get('exitCode')}"
        yield exited(spec, code, ended.get("message", ""))


def _image(spec: FunctionSpec, message: str) -> Aspect:
    where = f"spec.code.image {spec.code.image}" if spec.code.image else f"the image of spec.runtime {spec.runtime}"
    return mark_false(
        conditions.IMAGE_PULL_FAILED,
        f"{where} can't be pulled: {message} Check the name and tag; a private registry needs spec.pod.imagePullSecrets.",
    )
