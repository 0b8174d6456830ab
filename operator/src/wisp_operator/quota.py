"""What a Function asks for, and whether its namespace's quota has room for it.

Pure. Invariant: a quota refuses growth alone. What a Function has already it keeps, whatever the quota says now, and may change
everything that does not ask for more: a quota that was lowered ends nothing.
"""

from collections.abc import Collection
from typing import Any, NamedTuple

import msgspec
from wisp_api.function import FunctionSpec, Reserved, Scale
from wisp_api.quota import FunctionQuotaSpec, PerFunction, QuotaDefaults

from wisp_operator.api import Object
from wisp_operator.function_objects import mebibytes


class Share(NamedTuple):
    """What one Function may use at most."""

    instances: int
    memory: int
    """MiB of each."""

    @property
    def total(self) -> int:
        """MiB of all."""
        return self.instances * self.memory


def complete(spec: Object, quota: FunctionQuotaSpec) -> Object:
    """A Function's spec with the namespace's defaults for what it leaves open."""
    defaults = quota.defaults or QuotaDefaults()
    made = ({"memory": defaults.memory} if defaults.memory else {}) | spec
    scale = spec.get("scale", {})
    if defaults.instances and "max" not in scale:
        made["scale"] = scale | {"max": max(defaults.instances, scale.get("min", 0))}
    elif scale.get("min", 0) > scale.get("max", Scale().max):
        made["scale"] = scale | {"max": scale["min"]}
    return made


def asked(spec: FunctionSpec) -> Share:
    """What a Function asks for."""
    return Share(spec.scale.max, mebibytes(spec.memory))


def reserved(share: Share) -> dict[str, Any]:
    """A share as a Function's status says it."""
    made: dict[str, Any] = msgspec.to_builtins(Reserved(instances=share.instances, memory=f"{share.memory}Mi"))
    return made


def held(function: Object) -> Share | None:
    """What a Function was granted when it was last deployed; None where it never was."""
    found = function.get("status", {}).get("reserved")
    return Share(found["instances"], mebibytes(found["memory"])) if found else None


class _Limit(NamedTuple):
    """One number of a quota, and what a Function means to it."""

    field: str
    most: int | None
    wanted: int
    had: int
    others: int
    remedy: str
    unit: str = ""


def grows(quota: FunctionQuotaSpec, wanted: Share, had: Share | None) -> bool:
    """Whether the Function asks for more of what the quota limits than it has."""
    return any(limit.most is not None and limit.wanted > limit.had for limit in _limits(quota, wanted, had, ()))


def excess(quota: FunctionQuotaSpec, wanted: Share, had: Share | None, others: Collection[Share]) -> str:
    """Why the quota has no room for what a Function asks for, in a sentence; empty where it has."""
    for limit in _limits(quota, wanted, had, others):
        if limit.most is not None and limit.had < limit.wanted and limit.others + limit.wanted > limit.most:
            taken = (
                "" if limit.field.startswith("perFunction") else f", other functions have {limit.others}{limit.unit}"
            )
            return (
                f"the namespace's quota has no room: {limit.field} is {limit.most}{limit.unit}{taken}, this function asks for "
                f"{limit.wanted}{limit.unit}. {limit.remedy}, or ask the cluster's administrators to raise the FunctionQuota"
            )
    return ""


def _limits(
    quota: FunctionQuotaSpec, wanted: Share, had: Share | None, others: Collection[Share]
) -> tuple[_Limit, ...]:
    each, before = quota.per_function or PerFunction(), had or Share(0, 0)
    smaller, fewer = "Lower spec.memory", "Lower spec.scale.max"
    return (
        _Limit("perFunction.memory", _size(each.memory), wanted.memory, before.memory, 0, smaller, " MiB"),
        _Limit("perFunction.instances", each.instances, wanted.instances, before.instances, 0, fewer),
        _Limit("functions", quota.functions, 1, int(had is not None), len(others), "Delete one that nobody needs"),
        _Limit(
            "instances",
            quota.instances,
            wanted.instances,
            before.instances,
            sum(one.instances for one in others),
            fewer,
        ),
        _Limit(
            "memory",
            _size(quota.memory),
            wanted.total,
            before.total,
            sum(one.total for one in others),
            f"{smaller} or spec.scale.max",
            " MiB",
        ),
    )


def _size(text: str | None) -> int | None:
    return mebibytes(text) if text is not None else None
