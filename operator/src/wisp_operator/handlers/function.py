"""A Function: made, compared with what the cluster holds, and its status written. One call does all of it and may run at any time."""

import contextlib
import functools
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from wisp_api import conditions, names
from wisp_api.function import CODE_BYTES, FILE_NAME, FunctionSpec, RolloutStatus

from wisp_operator import function_status, rollout, start_failure
from wisp_operator.api import CONFIG_MAPS, FUNCTIONS, KNATIVE_SERVICES, PODS, REVISIONS, Api, ApiError, Object
from wisp_operator.apply import apply, make_once
from wisp_operator.callers import make_auth_config_map
from wisp_operator.client_image import FRONT_RUNTIME, brings_client
from wisp_operator.code_store import CodeStore
from wisp_operator.config import OperatorConfig
from wisp_operator.context import Context
from wisp_operator.env import env_digest, named_config_maps
from wisp_operator.fence import trespass
from wisp_operator.function_objects import code_sha256, make_config_map, make_knative_service
from wisp_operator.handlers.code import Code, earlier, resolve, verified
from wisp_operator.handlers.quota import room
from wisp_operator.history import make_history, superfluous
from wisp_operator.keys import FunctionKey
from wisp_operator.pod_metrics import read_counts
from wisp_operator.quota import complete, demand, reserved, sizes
from wisp_operator.status import TRUE, Aspect, make_conditions, write_status

_RETRY_SECONDS: Final = 30.0
_RETRY_LIMIT: Final = 300.0
_REVISION_OF: Final = "serving.knative.dev/service"
_POD_OF: Final = "serving.knative.dev/revision"


async def reconcile(context: Context, key: FunctionKey) -> float | None:
    """Bring a Function's objects and status to what its spec says; in how many seconds to look again, if nothing tells of a change.

    Raises:
        ApiError: the API is busy or broken; tried again soon.
    """
    function = await context.api.get(FUNCTIONS, key.namespace, key.name)
    if function is None or "deletionTimestamp" in function["metadata"]:
        context.env.name(key, set())
        return None  # what it owned goes with it
    try:
        spec = msgspec.convert(complete(function["spec"], context.quota(key.namespace)), FunctionSpec)
    except msgspec.ValidationError as error:
        done = Deployed(function_status.invalid(conditions.INVALID_SPEC, f"spec: {error}"), Code())
        return await _tell(context, key, function, None, done)
    if barred := trespass(spec, key.namespace, context.config):
        done = Deployed(function_status.invalid(conditions.INVALID_SPEC, barred), Code())
        return await _tell(context, key, function, None, done)
    async with contextlib.AsyncExitStack() as granted:
        code = await resolve(context, function, spec, datetime.now(UTC))
        done = await _deploy(context, function, spec, code, granted)
        return await _tell(context, key, function, spec, done)


async def _tell(
    context: Context, key: FunctionKey, function: Object, spec: FunctionSpec | None, done: "Deployed"
) -> float | None:
    """Write what came of it into the status; in how many seconds to look again."""
    service = done.service or await _serving(context.api, function)
    now = datetime.now(UTC)
    fields = function_status.fields(spec, service) | done.code.fields() | done.fields
    states = make_conditions(function, done.aspects, now)
    await write_status(context.api, FUNCTIONS, function, {"conditions": states, **fields}, now)
    if all(aspect.status == TRUE for aspect in done.aspects.values()):
        await _collect(context.api, key, done)
        return earlier(done.wait, done.code.again)
    return earlier(done.wait or _patience(states, now), done.code.again)


async def _serving(api: Api, function: Object) -> Object | None:
    """The Service that serves on when a change of the Function is refused: its address stays in the status, for callers and routes."""
    try:
        live = await api.get(KNATIVE_SERVICES, function["metadata"]["namespace"], function["metadata"]["name"])
    except ApiError as error:
        if error.passing:
            raise
        return None
    return live if live is not None and _owned(live, function) else None


def _patience(states: list[Object], now: datetime) -> float:
    """In how many seconds to look again at what is not ready: the longer it hasn't been, the later, since whatever heals it mostly makes an event."""
    age = (now - datetime.fromisoformat(states[0]["lastTransitionTime"])).total_seconds()
    return min(max(age / 4, _RETRY_SECONDS), _RETRY_LIMIT)


@dataclass(frozen=True)
class Deployed:
    """What came of a Function."""

    aspects: dict[str, Aspect]
    code: Code
    service: Object | None = None
    """As it is; None where nothing was written."""
    fields: dict[str, Any] = field(default_factory=dict)
    """Of the status, besides the Service's own."""
    wait: float | None = None
    """In how many seconds to look again at what nothing tells of."""
    superfluous: Sequence[str] = ()
    """Revisions that are not kept."""
    config_maps: frozenset[str] = frozenset()
    """Names of those that the present template reads."""


async def _deploy(
    context: Context, function: Object, spec: FunctionSpec, code: Code, granted: contextlib.AsyncExitStack
) -> Deployed:
    """Write ConfigMap and Knative Service, and see how far the revision is; nothing is written where the quota is exceeded.

    `granted` holds what the quota gave until the status says it.
    """
    if problem := code_problem(spec, context.config):
        return Deployed(function_status.invalid(conditions.INVALID_CODE, problem), code)
    api, meta = context.api, function["metadata"]
    image = _runtime_image(spec, context.config)
    held = await context.env.read(api, FunctionKey(meta["namespace"], meta["name"]), named_config_maps(spec))
    make = functools.partial(
        make_knative_service,
        function,
        spec,
        image,
        log_lines_url=context.config.log_lines_url,
        ingest_url=context.config.ingest_url,
        env=env_digest(spec, held),
    )
    wanted = make(code=code.pod)["spec"]["template"]["metadata"]["name"]
    try:
        guard = await _guard(context, function, spec)
    except ApiError as error:
        return Deployed(function_status.keys_unavailable(error), code)
    try:
        live = await api.get(KNATIVE_SERVICES, meta["namespace"], meta["name"])
        revisions = await api.list(REVISIONS, meta["namespace"], f"{_REVISION_OF}={meta['name']}") if live else []
        share = demand(spec, wanted, sizes(revisions), _routed(live))
        excess = await granted.enter_async_context(room(context, function, share))
        files = [make_config_map(function, spec.code.files)] if spec.code.files is not None else []
        config_maps = files + guard
        if barred := function_status.over_quota(excess) if excess else await _mount(api, function, live, config_maps):
            return Deployed(barred, code)
        shares, pods = await _plan(api, function, spec, revisions, wanted)
        async with _referring(context, meta["namespace"], code) as store:
            code = await verified(context, store, function, code, live) if store else code
            if code.problem:
                return Deployed(function_status.without_code(code.problem), code, live)
            service = make(shares.traffic, code.pod)
            service = await apply(api, KNATIVE_SERVICES, service, live)
    except ApiError as error:
        if error.passing:
            raise
        return Deployed(function_status.refused(error), code)
    revision = next((item for item in revisions if item["metadata"]["name"] == wanted), None)
    wait = shares.wait
    if revision is not None and not function_status.started(revision):
        wait = start_failure.next_look(revision, datetime.now(UTC))
    return Deployed(
        function_status.aspects(spec, service, revision, pods, shares.aspect, warning=code.warning),
        code,
        service,
        _fields(function, _sha256(spec, code), revisions, wanted, shares) | {"reserved": reserved(share)},
        wait,
        superfluous(spec, revisions, [*shares.traffic, *service.get("status", {}).get("traffic", [])], wanted),
        frozenset(item["metadata"]["name"] for item in config_maps),
    )


def _routed(live: Object | None) -> list[str]:
    """The revisions that a Service's requests go to, whatever they are told to."""
    targets = (live or {}).get("status", {}).get("traffic", [])
    return [target["revisionName"] for target in targets if target.get("revisionName") and target.get("percent")]


async def _mount(
    api: Api, function: Object, live: Object | None, config_maps: Sequence[Object]
) -> dict[str, Aspect] | None:
    """Write what the pods mount; the aspects where the Service or one of these belongs to someone else."""
    namespace = function["metadata"]["namespace"]
    if live is not None and not _owned(live, function):
        return function_status.not_owned(live["metadata"]["name"])
    for config_map in config_maps:
        name = config_map["metadata"]["name"]
        if live is None and config_map.get("immutable") and await make_once(api, CONFIG_MAPS, config_map):
            continue
        known = await api.get(CONFIG_MAPS, namespace, name)
        if known is not None and not _owned(known, function):
            return function_status.not_owned(name, "ConfigMap")
        await apply(api, CONFIG_MAPS, config_map, known)
    return None


async def _plan(
    api: Api, function: Object, spec: FunctionSpec, revisions: list[Object], wanted: str
) -> tuple[rollout.Plan, list[Object]]:
    """The shares, and the new revision's pods where they have something to say: why it does not start, or how many errors it makes."""
    status = function.get("status", {})
    before = msgspec.convert(status["rollout"], RolloutStatus) if status.get("rollout") else None
    started = {item["metadata"]["name"]: function_status.started(item) for item in revisions}
    counted = rollout.in_progress(spec, before, wanted)
    pods: list[Object] = []
    if counted or not started.get(wanted, True):
        pods = await api.list(PODS, function["metadata"]["namespace"], f"{_POD_OF}={wanted}")
    serving = max(status.get("traffic") or [{}], key=lambda share: int(share.get("percent", 0))).get("revision")
    counts = await read_counts(pods) if counted else rollout.Counts()
    seen = rollout.Seen(wanted, started, before, serving, counts)
    return rollout.plan(spec, seen, datetime.now(UTC)), pods


def _fields(
    function: Object, code: str | None, revisions: list[Object], wanted: str, shares: rollout.Plan
) -> dict[str, Any]:
    """The status' fields that speak of revisions; None takes one away."""
    past = make_history(revisions, function.get("status", {}), wanted, code)
    return {
        "rollout": msgspec.to_builtins(shares.state) if shares.state else None,
        "history": past or None,
    }


async def _guard(context: Context, function: Object, spec: FunctionSpec) -> list[Object]:
    """The ConfigMap that says who may call, where not everybody may."""
    if spec.auth is None or spec.auth.type == "none":
        return []
    return [make_auth_config_map(function, spec.auth, await context.callers.get())]


def _sha256(spec: FunctionSpec, code: Code) -> str | None:
    """What tells this code from other code; None for an image."""
    if code.pod and code.pod.code:
        return code.pod.code
    return code_sha256(spec.code.files) if spec.code.files else None


@contextlib.asynccontextmanager
async def _referring(context: Context, namespace: str, code: Code) -> AsyncIterator[CodeStore | None]:
    """Hold the namespace's lock of the code store where archives are named, so that none is collected meanwhile."""
    if code.pod is None or context.code_store is None:
        yield None
        return
    async with context.code_store.locks[namespace]:
        yield context.code_store


def code_problem(spec: FunctionSpec, config: OperatorConfig) -> str:
    """What is wrong with the code that the CRD's rules can't see, empty if nothing."""
    files = spec.code.files or {}
    if wrong := sorted(name for name in files if not FILE_NAME.fullmatch(name)):
        return f"spec.code.files: {wrong[0]!r} is no file name: use letters, digits, '.', '_', '-'; folders go into spec.code.stored or spec.code.image"
    if sum(len(text.encode()) for text in files.values()) > CODE_BYTES:
        return (
            "spec.code.files holds more than 192 KiB in all: put larger code into spec.code.stored or spec.code.image"
        )
    if spec.code.image is None and spec.runtime not in config.runtimes:
        return f"spec.runtime {spec.runtime}: this installation has no image for it (chart value images); name one in spec.code.image"
    if brings_client(spec) and not _runtime_image(spec, config):
        return f"spec.signature lambda: this installation has no image of the runtime {FRONT_RUNTIME} (chart value images), which runs beside yours"
    return ""


def _runtime_image(spec: FunctionSpec, config: OperatorConfig) -> str:
    runtime = config.runtimes.get(FRONT_RUNTIME if brings_client(spec) else spec.runtime)
    return runtime.image if runtime else ""


def _owned(live: Object, function: Object) -> bool:
    owners = live["metadata"].get("ownerReferences", [])
    return any(owner["uid"] == function["metadata"]["uid"] for owner in owners)


async def _collect(api: Api, key: FunctionKey, done: Deployed) -> None:
    """Delete revisions that are not kept, and ConfigMaps that no revision reads any more."""
    for name in done.superfluous:
        await api.delete(REVISIONS, key.namespace, name)
    found = await api.list(CONFIG_MAPS, key.namespace, f"{names.FUNCTION_LABEL}={key.name}")
    held = {item["metadata"]["name"] for item in found} - done.config_maps
    if not held:
        return
    left = await api.list(REVISIONS, key.namespace, f"{_REVISION_OF}={key.name}")
    used = {
        volume.get("configMap", {}).get("name") for revision in left for volume in revision["spec"].get("volumes", [])
    }
    for name in sorted(held - used):
        await api.delete(CONFIG_MAPS, key.namespace, name)
