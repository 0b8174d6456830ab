"""The volumes that a Function brings along, in its own container. Pure.

Invariants: no name meets one of the platform's, because each gets a prefix that none of those has; and nothing but an empty folder, or a claim
that says so, can be written to.
"""

from typing import Final

import msgspec
from wisp_api.pod import Pod, Volume

from wisp_operator.api import Object
from wisp_operator.quantities import quantity

_PREFIX: Final = "own-"


def add_volumes(pod_spec: Object, pod: Pod) -> None:
    """Mount them; the code's container is the last one, also beside the platform's front."""
    given = {volume.name: volume for volume in pod.volumes or []}
    pod_spec["volumes"] += [_volume(volume) for volume in given.values()]
    mounts = pod_spec["containers"][-1].setdefault("volumeMounts", [])
    for mount in pod.volume_mounts or []:
        made: Object = {"name": _PREFIX + mount.name, "mountPath": mount.mount_path}
        if mount.sub_path:
            made["subPath"] = mount.sub_path
        if not _writable(given[mount.name]):
            made["readOnly"] = True
        mounts.append(made)


def _volume(volume: Volume) -> Object:
    made: Object = msgspec.to_builtins(volume) | {"name": _PREFIX + volume.name}
    if empty := volume.empty_dir:
        medium = {"medium": empty.medium} if empty.medium else {}
        made["emptyDir"] = {"sizeLimit": quantity(empty.size_limit)} | medium
    if claim := volume.persistent_volume_claim:
        read_only = {"readOnly": True} if claim.read_only else {}
        made["persistentVolumeClaim"] = {"claimName": claim.claim_name} | read_only
    return made


def _writable(volume: Volume) -> bool:
    claim = volume.persistent_volume_claim
    return volume.empty_dir is not None or (claim is not None and not claim.read_only)
