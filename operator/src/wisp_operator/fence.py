"""What a Function may not take hold of, however it was stored: the platform's own credentials. Pure.

The CRD's rules bind only what is written while they stand: an object from before an upgrade keeps its field, and an edit elsewhere in it passes.
Invariant: no Service is written for a Function that names one of the platform's Secrets of its namespace, or lives in the platform's own,
where every Secret and ServiceAccount is the platform's. A new field that names a Secret for the function's container belongs into `_secrets`.
"""

import re
from collections.abc import Iterator

from wisp_api.function import FunctionSpec
from wisp_api.kube import NOT_FOR_FUNCTIONS, OWN_SECRETS
from wisp_api.pod import Volume

from wisp_operator.config import OperatorConfig


def trespass(spec: FunctionSpec, namespace: str, config: OperatorConfig) -> str:
    """What the Function must not have, with its field; empty if nothing."""
    if namespace == config.namespace:
        return f"Functions don't run in the platform's own namespace {namespace}, among its credentials: create it in another"
    for field, name in _secrets(spec):
        if re.fullmatch(OWN_SECRETS, name):
            return f"{field} names the Secret {name}: {NOT_FOR_FUNCTIONS}"
    return ""


def _secrets(spec: FunctionSpec) -> Iterator[tuple[str, str]]:
    """Fields and names of the Secrets that the function can read; pull secrets go to the kubelet alone, connections to the platform's Jobs."""
    for variable in spec.env or []:
        if variable.value_from and variable.value_from.secret_key_ref:
            yield "spec.env", variable.value_from.secret_key_ref.name
    for all_ in spec.env_from or []:
        if all_.secret_ref:
            yield "spec.envFrom", all_.secret_ref.name
    for volume in (spec.pod.volumes if spec.pod else None) or []:
        yield from (("spec.pod.volumes", name) for name in _mounted(volume))


def _mounted(volume: Volume) -> Iterator[str]:
    if volume.secret:
        yield volume.secret.secret_name
    for source in volume.projected.sources if volume.projected else []:
        if source.secret:
            yield source.secret.name
