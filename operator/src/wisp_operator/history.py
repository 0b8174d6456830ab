"""A Function's revisions: which are told of, and which are kept. Pure."""

from collections.abc import Iterable
from typing import Final

from wisp_api.function import FunctionSpec

from wisp_operator.api import Object
from wisp_operator.function_status import started

_GENERATION: Final = "serving.knative.dev/configurationGeneration"


def newest_first(revisions: Iterable[Object]) -> list[Object]:
    """By when they were made; times are whole seconds, so within one by Knative's own count."""

    def age(item: Object) -> tuple[str, int]:
        meta = item["metadata"]
        return str(meta.get("creationTimestamp")), int(meta.get("labels", {}).get(_GENERATION, 0))

    return sorted(revisions, key=age, reverse=True)


def make_history(revisions: Iterable[Object], status: Object, wanted: str, code: str | None) -> list[Object]:
    """What the status lists; `code` is the hash of the code of the revision `wanted`, the others' are taken over."""
    known = {item["revision"]: item.get("codeSha256") for item in status.get("history") or []} | {wanted: code}
    made = []
    for revision in newest_first(revisions):
        name = revision["metadata"]["name"]
        sha = {"codeSha256": known[name]} if known.get(name) else {}
        once = {"started": True} if started(revision) else {}
        made.append({"revision": name, "created": revision["metadata"]["creationTimestamp"], **once, **sha})
    return made[:128]


def superfluous(spec: FunctionSpec, revisions: Iterable[Object], traffic: Iterable[Object], wanted: str) -> list[str]:
    """Revisions beyond the limit that nothing names: no share, no tag, no pin."""
    named = {target.get("revisionName") for target in traffic} | {tag.revision for tag in (spec.tags or {}).values()}
    named |= {spec.pin, wanted}
    old = [item["metadata"]["name"] for item in newest_first(revisions)][spec.revision_history_limit :]
    return [name for name in old if name not in named]
