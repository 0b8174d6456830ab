"""A namespace's quota: asked before a Function is taken and before it is deployed, and its use told.

The webhook asks in the words of the specs, so that `kubectl apply` is refused, and counts no
more than these are sure to need; the operator asks by what was granted (status.reserved),
one Function of a namespace at a time, so that what was taken without the webhook is not deployed beyond the quota. Invariant: what a
Function was granted stands in its status before the next one's question is answered.
"""

import contextlib
from collections.abc import AsyncIterator

import msgspec
from wisp_api import conditions, names
from wisp_api.function import FunctionSpec
from wisp_api.quota import FunctionQuotaSpec, FunctionQuotaStatus

from wisp_operator.api import FUNCTION_QUOTAS, FUNCTIONS, REVISIONS, Api, ApiError, Object
from wisp_operator.apply import covers
from wisp_operator.config import OperatorConfig
from wisp_operator.context import Context
from wisp_operator.keys import FunctionKey
from wisp_operator.quota import Share, complete, excess, foreseen, grows, held, names_revisions, sizes
from wisp_operator.workqueue import WorkQueue

NAME = "default"


async def read_quotas(api: Api) -> dict[str, FunctionQuotaSpec]:
    """The quotas of all namespaces that have one; none where the cluster doesn't know the kind yet.

    Raises:
        ApiError: refused.
    """
    try:
        found = await api.list(FUNCTION_QUOTAS, None)
    except ApiError as error:
        if error.unknown_kind:
            return {}
        raise
    return {item["metadata"]["namespace"]: msgspec.convert(item["spec"], FunctionQuotaSpec) for item in found}


@contextlib.asynccontextmanager
async def room(context: Context, function: Object, wanted: Share) -> AsyncIterator[str]:
    """Why the quota has no room for a Function, empty where it has; to be held until its status says what it was granted.

    Raises:
        ApiError: the API refused.
    """
    meta, had = function["metadata"], held(function)
    quota = context.quota(meta["namespace"])
    if not grows(quota, wanted, had):
        yield ""
        return
    async with context.quota_locks[meta["namespace"]]:
        items = await context.api.list(FUNCTIONS, meta["namespace"])
        others = [share for item in items if item["metadata"]["name"] != meta["name"] and (share := held(item))]
        yield excess(quota, wanted, had, others)


async def refusal(api: Api, config: OperatorConfig, item: Object, before: Object | None) -> str:
    """Why the webhook refuses a Function (`before`: as it is), in a sentence; empty where the quota has room for it.

    Raises:
        ApiError: the API refused.
    """
    meta, quota = item["metadata"], config.quota
    with contextlib.suppress(ApiError):  # a cluster that doesn't know the kind yet
        if found := await api.get(FUNCTION_QUOTAS, meta["namespace"], NAME):
            quota = msgspec.convert(found["spec"], FunctionQuotaSpec)
    mine = [item, before] if before else [item]
    wanted, *had = await _foreseen(api, mine, quota)
    if not grows(quota, wanted, had[0] if had else None):
        return ""
    items = await api.list(FUNCTIONS, meta["namespace"])
    others = [one for one in items if one["metadata"]["name"] != meta.get("name")]
    return excess(quota, wanted, had[0] if had else None, await _foreseen(api, others, quota))


async def _foreseen(api: Api, functions: list[Object], quota: FunctionQuotaSpec) -> list[Share]:
    """What Functions of one namespace ask for by their specs, and by the Revisions where these name some."""
    known: dict[str, Share] = {}
    if naming := [item["metadata"] for item in functions if names_revisions(item["spec"])]:
        known = sizes(await api.list(REVISIONS, naming[0]["namespace"], names.FUNCTION_LABEL))
    return [foreseen(msgspec.convert(complete(item["spec"], quota), FunctionSpec), known) for item in functions]


async def reconcile(context: Context, functions: WorkQueue[FunctionKey], namespace: str) -> None:
    """Take a namespace's quota up, say what is used of it, and look again at the Functions that it concerns.

    Raises:
        ApiError: the API refused.
    """
    quota = await context.api.get(FUNCTION_QUOTAS, namespace, NAME)
    before = context.quota(namespace)
    context.quotas.pop(namespace, None)
    if quota:
        context.quotas[namespace] = msgspec.convert(quota["spec"], FunctionQuotaSpec)
    changed = context.quota(namespace) != before
    items = await context.api.list(FUNCTIONS, namespace)
    for item in items:
        if changed or _refused(item):
            functions.add(FunctionKey(namespace, item["metadata"]["name"]))
    if quota:
        status = msgspec.to_builtins(_used(items))
        if not covers(quota.get("status", {}), status):
            await context.api.merge(FUNCTION_QUOTAS, namespace, NAME, {"status": status}, "status")


def _used(functions: list[Object]) -> FunctionQuotaStatus:
    shares = [share for item in functions if (share := held(item))]
    return FunctionQuotaStatus(
        functions=len(shares),
        instances=sum(share.instances for share in shares),
        memory=f"{sum(share.total for share in shares)}Mi",
    )


def _refused(function: Object) -> bool:
    states = function.get("status", {}).get("conditions", [])
    return any(state["reason"] == conditions.QUOTA_EXCEEDED for state in states)
