"""What `wisp describe` says of an object before its conditions: pairs of a label and a text, made of the object alone.

Invariant: what the object doesn't have is either a dash or no line, never Python's None within a sentence.
"""

from typing import Any

import msgspec
from wisp_api.function import Scale

from wisp import output
from wisp.cluster import Object


def of_function(item: Object) -> dict[str, Any]:
    """A Function's; fields that few set have a line only where they are set."""
    spec, status = item["spec"], item.get("status") or {}
    has = {"memory": None, "instances": Scale().max} | status.get("reserved", {})
    scale = msgspec.convert({"max": has["instances"]} | spec.get("scale", {}), Scale)
    always = {
        "Runtime": spec["runtime"],
        "Handler": spec.get("handler"),
        "Code": _code(spec["code"]),
    }
    sometimes = {
        "Code hash": status.get("codeSha256"),
        "Layers": ", ".join(_archive(layer) for layer in spec.get("layers") or []),
        "Requirements": _requirements(spec, status),
    }
    more = {
        "Memory": spec.get("memory", has["memory"]),
        "Timeout": f"{spec.get('timeoutSeconds')} s",
        "Scale": f"{scale.min} to {scale.max} pods, {scale.per_instance} at once in each",
        "URL": status.get("url"),
        "Visibility": spec.get("visibility"),
    }
    serving = {
        "Roll-out": _rollout(status.get("rollout")),
        "Pinned to": spec.get("pin"),
        "Tags": _tags(spec.get("tags") or {}, status.get("tags") or {}),
    }
    return always | _present(sometimes) | more | _present(serving)


def of_subscription(item: Object) -> dict[str, Any]:
    """A Subscription's."""
    spec, status = item["spec"], item.get("status") or {}
    return {
        "Function": receiver(spec),
        "Source": status.get("source") or next(iter(spec["source"]), ""),
        "Delivered": status.get("delivered", 0),
        "Failed": f"{status.get('failed', 0)} attempts",
        "Dead letters": status.get("deadLettered", 0),
        "Pending": status.get("pending", 0),
        "Oldest pending": f"{output.age(status['oldestPending'])} ago" if status.get("oldestPending") else None,
        "Last delivery": f"{output.age(status['lastDelivery'])} ago" if status.get("lastDelivery") else None,
    }


def receiver(spec: Object) -> str:
    """Where a Subscription's events go: a Function's name, or a sink."""
    if "function" in spec:
        return str(spec["function"]["name"])
    ref = spec["sink"].get("ref")
    return f"{ref['kind']} {ref['name']}" if ref else str(spec["sink"]["uri"])


def _present(facts: dict[str, str | None]) -> dict[str, str | None]:
    return {label: text for label, text in facts.items() if text}


def _code(code: Object) -> str:
    if "files" in code:
        return f"files {', '.join(code['files'])}"
    if "stored" in code:
        return f"archive {code['stored']['sha256']} in the code store"
    return f"zip {_archive(code['zip'])}" if "zip" in code else f"image {code['image']}"


def _archive(archive: Object) -> str:
    """Where an archive lies, and which one it has to be where the spec says so."""
    exact = [
        f"{word} {archive[field]}"
        for field, word in (("versionId", "version"), ("sha256", "sha256"))
        if field in archive
    ]
    return " ".join([f"{archive['bucket']}/{archive['key']}", *exact])


def _requirements(spec: Object, status: Object) -> str:
    """What was asked for, and how much came of it: the packages that those need are among it."""
    asked = ", ".join(spec.get("requirements") or [])
    built = len((status.get("requirements") or {}).get("packages") or [])
    return f"{asked} ({built} packages installed)" if asked and built else asked


def _rollout(rollout: Object | None) -> str:
    if not rollout:
        return ""
    parts = [
        f"{rollout['revision']} {rollout['state']}, {rollout.get('percent', 0)} % since {output.age(rollout['since'])}"
    ]
    parts += [f"the rest to {rollout['stable']}"] if rollout.get("stable") and rollout["state"] == "Progressing" else []
    parts += [rollout["message"]] if rollout.get("message") else []
    return "; ".join(parts)


def _tags(tags: Object, urls: dict[str, str]) -> str:
    texts = [
        f"{name} is {tag['revision']}" + (f" at {urls[name]}" if name in urls else "") for name, tag in tags.items()
    ]
    return ", ".join(texts)
