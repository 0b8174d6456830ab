"""A Function: made, compared with what the cluster holds, and its status written. One call does all of it and may run at any time."""

import re
from datetime import UTC, datetime
from typing import Final, NamedTuple

import msgspec
from wisp_api import conditions, names
from wisp_api.function import CODE_BYTES, FunctionSpec

from wisp_operator import function_status, start_failure
from wisp_operator.api import CONFIG_MAPS, FUNCTIONS, KNATIVE_SERVICES, PODS, REVISIONS, Api, ApiError, Object
from wisp_operator.apply import apply
from wisp_operator.client_image import FRONT_RUNTIME, brings_client
from wisp_operator.config import OperatorConfig
from wisp_operator.context import Context, FunctionKey
from wisp_operator.function_objects import make_config_map, make_knative_service
from wisp_operator.status import TRUE, Aspect, make_conditions, write_status

_RETRY_SECONDS: Final = 30.0
_FILE_NAME: Final = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_REVISION_OF: Final = "serving.knative.dev/service"
_POD_OF: Final = "serving.knative.dev/revision"


async def reconcile(context: Context, key: FunctionKey) -> float | None:
    """Bring a Function's objects and status to what its spec says; in how many seconds to look again, if nothing tells of a change."""
    function = await context.api.get(FUNCTIONS, key.namespace, key.name)
    if function is None or "deletionTimestamp" in function["metadata"]:
        return None  # what it owned goes with it
    spec, service, revision = None, None, None
    try:
        spec = msgspec.convert(function["spec"], FunctionSpec)
    except msgspec.ValidationError as error:
        aspects = function_status.invalid(conditions.INVALID_SPEC, f"spec: {error}")
    else:
        aspects, service, revision = await _deploy(context, function, spec)
    now = datetime.now(UTC)
    status = {"conditions": make_conditions(function, aspects, now), **function_status.fields(spec, service)}
    await write_status(context.api, FUNCTIONS, function, status, now)
    ready = all(aspect.status == TRUE for aspect in aspects.values())
    if ready:
        await _collect_code(context.api, key)
        return None
    if revision is not None and not function_status.started(revision):
        return start_failure.next_look(revision, now)
    return _RETRY_SECONDS


class Deployed(NamedTuple):
    """What came of a Function."""

    aspects: dict[str, Aspect]
    service: Object | None = None
    """As it is."""
    revision: Object | None = None
    """Of the Function's present template."""


async def _deploy(context: Context, function: Object, spec: FunctionSpec) -> Deployed:
    """Write ConfigMap and Knative Service, and see how far the revision is."""
    if problem := code_problem(spec, context.config):
        return Deployed(function_status.invalid(conditions.INVALID_CODE, problem))
    api, meta = context.api, function["metadata"]
    wanted = make_knative_service(function, spec, _runtime_image(spec, context.config))
    try:
        live = await api.get(KNATIVE_SERVICES, meta["namespace"], meta["name"])
        if live is not None and not _owned(live, function):
            return Deployed(function_status.not_owned(meta["name"]))
        if spec.code.files is not None:
            code = make_config_map(function, spec.code.files)
            await apply(api, CONFIG_MAPS, code, await api.get(CONFIG_MAPS, meta["namespace"], code["metadata"]["name"]))
        service = await apply(api, KNATIVE_SERVICES, wanted, live)
        revision = await api.get(REVISIONS, meta["namespace"], wanted["spec"]["template"]["metadata"]["name"])
    except ApiError as error:
        return Deployed(function_status.refused(error))
    pods: list[Object] = []
    if revision is not None and not function_status.started(revision):
        pods = await api.list(PODS, meta["namespace"], f"{_POD_OF}={revision['metadata']['name']}")
    return Deployed(function_status.aspects(spec, service, revision, pods), service, revision)


def code_problem(spec: FunctionSpec, config: OperatorConfig) -> str:
    """What is wrong with the code that the CRD's rules can't see, empty if nothing."""
    files = spec.code.files or {}
    if wrong := sorted(name for name in files if not _FILE_NAME.fullmatch(name)):
        return f"spec.code.files: {wrong[0]!r} is no file name: use letters, digits, '.', '_' and '-'; code with folders goes into an image (spec.code.image)"
    if sum(len(text.encode()) for text in files.values()) > CODE_BYTES:
        return "spec.code.files holds more than 192 KiB in all: put larger code into an image and name it in spec.code.image"
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


async def _collect_code(api: Api, key: FunctionKey) -> None:
    """Delete ConfigMaps that no revision reads any more."""
    held = await api.list(CONFIG_MAPS, key.namespace, f"{names.FUNCTION_LABEL}={key.name}")
    if len(held) < 2:  # noqa: PLR2004 - the one in use
        return
    revisions = await api.list(REVISIONS, key.namespace, f"{_REVISION_OF}={key.name}")
    used = {
        volume.get("configMap", {}).get("name")
        for revision in revisions
        for volume in revision["spec"].get("volumes", [])
    }
    for config_map in held:
        if config_map["metadata"]["name"] not in used:
            await api.delete(CONFIG_MAPS, key.namespace, config_map["metadata"]["name"])
