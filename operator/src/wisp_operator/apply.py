"""Bring one object to what is wanted: server-side apply, skipped when nothing drifted.

Invariant: an object that is as wanted causes no write. What is wanted carries a hash of itself as an annotation: a field
that is no longer wanted is found by it, a field that someone else changed by comparing the live object. Fields that the
API or others add are left alone. Wanted objects hold values in the form in which the API returns them (canonical
quantities, nothing empty), or the comparison would never end.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from wisp_operator.api import Api, ApiError, Object, Resource

APPLIED: Final = "wisp.dev/applied"


async def apply(api: Api, resource: Resource, wanted: Object, live: Object | None) -> Object:
    """The object as it is afterwards; `live` is what the API holds now, None where there is nothing.

    Raises:
        ApiError: refused.
    """
    wanted = stamped(wanted)
    if live is not None and covers(live, wanted):
        return live
    made = await api.apply(resource, wanted)
    if made.get("status") == (live or {}).get("status"):  # no state that was not looked at
        api.remember(made)
    return made


async def make_once(api: Api, resource: Resource, wanted: Object) -> bool:
    """Create an object that is never changed afterwards, which costs the API half of what applying it does; False where one of its name exists.

    Raises:
        ApiError: refused.
    """
    try:
        api.remember(await api.create(resource, wanted["metadata"]["namespace"], stamped(wanted)))
    except ApiError as error:
        if error.exists:
            return False
        raise
    return True


def stamped(wanted: Object) -> Object:
    """`wanted` with the hash of itself as an annotation."""
    metadata = wanted["metadata"]
    annotations = metadata.get("annotations", {}) | {APPLIED: digest(wanted)}
    return wanted | {"metadata": metadata | {"annotations": annotations}}


def covers(live: Any, wanted: Any) -> bool:
    """Whether everything of `wanted` stands in `live` too; list items are told apart by name or mountPath where they have one."""
    if isinstance(wanted, Mapping):
        return isinstance(live, Mapping) and all(
            key in live and covers(live[key], item) for key, item in wanted.items()
        )
    if isinstance(wanted, list):
        if not isinstance(live, list):
            return False
        if key := _list_key(wanted):
            found = {item.get(key): item for item in live if isinstance(item, Mapping)}
            return all(covers(found.get(item[key]), item) for item in wanted)
        return len(live) == len(wanted) and all(covers(*pair) for pair in zip(live, wanted, strict=True))
    return bool(live == wanted)


def digest(value: Any) -> str:
    """16 hex digits over the canonical JSON of a value: the same content, the same text."""
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()[:16]


def _list_key(items: list[Any]) -> str:
    """The field by which Kubernetes merges such a list, empty for a list that it replaces as a whole."""
    for key in ("mountPath", "name"):
        if items and all(isinstance(item, Mapping) and key in item for item in items):
            return key
    return ""
