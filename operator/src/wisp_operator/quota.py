"""What a Function asks for, and whether its namespace's quota has room for it.

Pure. Invariant: a quota refuses growth alone. What a Function has already it keeps, whatever the quota says now, and may change
everything that does not ask for more: a quota that was lowered ends nothing.

A revision keeps the pods and the memory that it was made with, and runs them for as long as requests reach it: so what has a tag
counts beside what serves. Of what serves the largest counts, because a roll-out, a pin and a way back replace one revision by another.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, NamedTuple, Self

import msgspec
from wisp_api.function import FunctionSpec, Reserved, Scale
from wisp_api.quota import FunctionQuotaSpec, PerFunction, QuotaDefaults

from wisp_operator.api import Object
from wisp_operator.quantities import mebibytes

_MAX_SCALE: Final = "autoscaling.knative.dev/max-scale"


class Share(NamedTuple):
    """What one Function may use at most."""

    instances: int
    memory: int
    """MiB of the largest."""
    total: int
    """MiB of all."""
    beside: int = 0
    """Pods of these that are not the spec's own, but those of an earlier revision."""

    @classmethod
    def of(cls, instances: int, memory: int) -> Self:
        """So many of one size."""
        return cls(instances, memory, instances * memory)


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
    """What the revision that a Function's spec makes may use."""
    return Share.of(spec.scale.max, mebibytes(spec.memory))


def sizes(revisions: Iterable[Object]) -> dict[str, Share]:
    """What each revision may use, by its name: what it was made with, whatever the Function's spec says now."""
    return {item["metadata"]["name"]: _size_of(item) for item in revisions}


def _size_of(revision: Object) -> Share:
    most = int(revision["metadata"].get("annotations", {}).get(_MAX_SCALE, Scale().max))
    limits = {
        container.get("name"): container.get("resources", {}).get("limits", {}).get("memory", "")
        for container in revision.get("spec", {}).get("containers", [])
    }
    memory = limits.get("function", "")
    return Share.of(most, mebibytes(memory) if memory.endswith(("Mi", "Gi")) else 0)


def demand(spec: FunctionSpec, wanted: str, known: Mapping[str, Share], serving: Iterable[str]) -> Share:
    """What a Function asks for: its tags' revisions, and the largest of what serves, is pinned, or is `wanted` by its spec."""
    tagged = {tag.revision for tag in (spec.tags or {}).values()}
    instead = {*serving, spec.pin or ""} - tagged - {wanted}
    main = _largest([asked(spec), *(known[name] for name in instead if name in known)])
    share = _sum([main, *(known[name] for name in tagged - {wanted} if name in known)])
    return share._replace(beside=share.instances - spec.scale.max)


def foreseen(spec: FunctionSpec, known: Mapping[str, Share]) -> Share:
    """What a Function asks for at least, by its spec alone: a tagged revision of the same size may be the one that the spec makes."""
    twin = (tag.revision for tag in (spec.tags or {}).values() if known.get(tag.revision) == asked(spec))
    return demand(spec, next(twin, ""), known, ())


def names_revisions(spec: Object) -> bool:
    """Whether a Function's spec names revisions, which have sizes of their own."""
    return bool(spec.get("pin") or spec.get("tags"))


def _largest(shares: Collection[Share]) -> Share:
    return Share(*(max(column) for column in zip(*shares, strict=True)))


def _sum(shares: Collection[Share]) -> Share:
    return Share(
        sum(one.instances for one in shares),
        max(one.memory for one in shares),
        sum(one.total for one in shares),
    )


def reserved(share: Share) -> dict[str, Any]:
    """A share as a Function's status says it."""
    told = Reserved(instances=share.instances, memory=f"{share.memory}Mi", total_memory=f"{share.total}Mi")
    made: dict[str, Any] = msgspec.to_builtins(told)
    return made


def held(function: Object) -> Share | None:
    """What a Function was granted when it was last deployed; None where it never was."""
    found = function.get("status", {}).get("reserved")
    if not found:
        return None
    share = Share.of(found["instances"], mebibytes(found["memory"]))
    return share._replace(total=mebibytes(found["totalMemory"])) if "totalMemory" in found else share


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
            kept = (
                f", with {wanted.beside} pods of earlier revisions, which a tag or spec.pin names or which serve"
                if wanted.beside
                else ""
            )
            return (
                f"the namespace's quota has no room: {limit.field} is {limit.most}{limit.unit}{taken}, this function asks for "
                f"{limit.wanted}{limit.unit}{kept}. {limit.remedy}, or ask the cluster's administrators to raise the FunctionQuota"
            )
    return ""


def _limits(
    quota: FunctionQuotaSpec, wanted: Share, had: Share | None, others: Collection[Share]
) -> tuple[_Limit, ...]:
    each, before = quota.per_function or PerFunction(), had or Share(0, 0, 0)
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
