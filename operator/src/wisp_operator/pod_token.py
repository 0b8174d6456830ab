"""A token of the pod's own ServiceAccount for one audience, mounted into one container."""

from typing import Final

from wisp_operator.api import Object

_SECONDS: Final = 3600
"""The kubelet renews it in time."""


def mount_token(pod_spec: Object, container: Object, name: str, audience: str) -> str:
    """Mount it under /etc/wisp; returns the file that it is in."""
    directory = f"/etc/wisp/{name}"
    token = {"audience": audience, "expirationSeconds": _SECONDS, "path": "token"}
    pod_spec["volumes"].append({"name": name, "projected": {"sources": [{"serviceAccountToken": token}]}})
    mount = {"name": name, "mountPath": directory, "readOnly": True}
    container.setdefault("volumeMounts", []).append(mount)
    return f"{directory}/token"
