"""Secrets that variables come from, mounted beside them: a container gets its variables once, files follow their Secret (decision 0054).

Pure. The runtime compares the files with what its processes were started with, and starts them anew where they differ; `WISP_ENV` tells it
how the variables are made (`wisp_runtime.variables` says its form). Invariants: of a Secret that is named by keys those keys alone are
mounted, of one in `envFrom` all, also keys that make no variable or a hidden one; what is told holds no value of a Secret; and no pod waits
for a file: a Secret that is missing is told of by the variable that needs it.
"""

import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec
from wisp_api.function import FunctionSpec
from wisp_api.kube import EnvFrom, EnvVar

from wisp_operator.api import Object
from wisp_operator.client_image import brings_client, serves_itself

FOLDER: Final = "/etc/wisp/env"
_MOST_BYTES: Final = 64 * 1024
"""Of `WISP_ENV`; Linux takes no variable of more than 128 KiB."""
_KEY: Final = re.compile(r"(?!\.\.?$|\.\.)[-._a-zA-Z0-9]+")
_NAMED: Final = re.compile(r"\$\(([^)]*)\)")


def add_secret_files(pod_spec: Object, spec: FunctionSpec) -> None:
    """Mount them, where the container has a front of ours that can follow."""
    keys = _keys(spec)
    if not any(place.startswith("secrets/") for place in keys) or serves_itself(spec) or brings_client(spec):
        return
    # The kubelet puts variables in the place of $(NAME) in any value: as JSON's escape, each $ comes as it is.
    told = msgspec.json.encode(_recipe(spec)).decode().replace("$", r"\u0024")
    if len(told) > _MOST_BYTES:
        return
    container = pod_spec["containers"][0]
    for number, (place, wanted) in enumerate(sorted(keys.items())):
        volume = f"env-{number}"
        pod_spec["volumes"].append({"name": volume} | _source(place, wanted))
        mount = {"name": volume, "mountPath": f"{FOLDER}/{place}", "readOnly": True}
        container["volumeMounts"].append(mount)
    container["env"].insert(0, {"name": "WISP_ENV", "value": told})


def _keys(spec: FunctionSpec) -> dict[str, set[str] | None]:
    """The objects to mount, with the keys that variables come from; None for all of them.

    ConfigMaps only beside whole Secrets, whose variables they may hide.
    """
    found: dict[str, set[str] | None] = {}
    for variable in spec.env or []:
        if variable.value_from and (key := variable.value_from.secret_key_ref):
            wanted = found.setdefault(f"secrets/{key.name}", set())
            if wanted is not None and _KEY.fullmatch(key.key):
                wanted.add(key.key)
    whole = spec.env_from or []
    if any(source.secret_ref for source in whole):
        found |= dict.fromkeys(map(_place, whole))
    return {place: wanted for place, wanted in found.items() if wanted is None or wanted}


def _source(place: str, keys: Iterable[str] | None) -> Object:
    """A volume of an object's keys."""
    kind, _, name = place.partition("/")
    source: Object = {"secretName": name} if kind == "secrets" else {"name": name}
    if keys is not None:
        source["items"] = [{"key": key, "path": key} for key in sorted(keys)]
    return {"secret" if kind == "secrets" else "configMap": source | {"optional": True}}


def _place(source: EnvFrom) -> str:
    return f"secrets/{source.secret_ref.name}" if source.secret_ref else f"configmaps/{_config_map(source)}"


def _config_map(source: EnvFrom) -> str:
    return source.config_map_ref.name if source.config_map_ref else ""


def _recipe(spec: FunctionSpec) -> Object:
    """How the variables are made."""
    variables = spec.env or []
    named = {name for variable in variables for name in _NAMED.findall(variable.value or "")}
    made: Object = {"env": [_variable(variable, named) for variable in variables]}
    if any(source.secret_ref for source in spec.env_from or []):
        made["from"] = [_whole(source) for source in spec.env_from or []]
    return made


def _whole(source: EnvFrom) -> Object:
    reference = source.secret_ref or source.config_map_ref
    made: dict[str, Any] = {"at": _place(source)}
    if source.prefix:
        made["prefix"] = source.prefix
    if reference and reference.optional:
        made["optional"] = True
    return made


def _variable(variable: EnvVar, named: set[str]) -> Object:
    """One variable; those that neither depend on others nor are named by others are what the container has got."""
    made: dict[str, Any] = {"name": variable.name}
    key = variable.value_from.secret_key_ref if variable.value_from else None
    if key:
        made |= {"at": f"secrets/{key.name}", "key": key.key}
        if key.optional:
            made["optional"] = True
    elif variable.value is not None and (variable.name in named or "$" in variable.value):
        made["value"] = variable.value
    return made
