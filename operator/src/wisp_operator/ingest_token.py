"""The ServiceAccount's token that a Function's code may show the ingest, to post events and to invoke functions.

Pure. Invariant: only a Function that names its ServiceAccount gets it: what its code does there is done in that name. The
token is for the ingest's audience and no other, besides the one for the Kubernetes API that Kubernetes mounts itself.
"""

from typing import Final

from wisp_api import names

from wisp_operator.api import Object

_DIRECTORY: Final = "/etc/wisp/ingest"
_TOKEN_SECONDS: Final = 3600
"""The kubelet renews it in time."""


def add_ingest_token(pod_spec: Object, ingest: str) -> None:
    """Tell the code, which is in the last container, where the ingest is and what to show it."""
    token = {"audience": names.AUDIENCE, "expirationSeconds": _TOKEN_SECONDS, "path": "token"}
    pod_spec["volumes"].append({"name": "ingest", "projected": {"sources": [{"serviceAccountToken": token}]}})
    code = pod_spec["containers"][-1]
    mount = {"name": "ingest", "mountPath": _DIRECTORY, "readOnly": True}
    code.setdefault("volumeMounts", []).append(mount)
    told = {"WISP_INGEST_URL": ingest, "WISP_INGEST_TOKEN_FILE": f"{_DIRECTORY}/token"}
    code["env"] = [{"name": name, "value": value} for name, value in told.items()] + code["env"]
