"""The ServiceAccount's token that a Function's code may show the ingest, to post events and to invoke functions.

Pure. Invariant: only a Function that names its ServiceAccount gets it: what its code does there is done in that name. The
token is for the ingest's audience and no other, besides the one for the Kubernetes API that Kubernetes mounts itself.
"""

from wisp_api import names

from wisp_operator.api import Object
from wisp_operator.pod_token import mount_token


def add_ingest_token(pod_spec: Object, ingest: str) -> None:
    """Tell the code, which is in the last container, where the ingest is and what to show it."""
    code = pod_spec["containers"][-1]
    token = mount_token(pod_spec, code, "ingest", names.AUDIENCE)
    told = {"WISP_INGEST_URL": ingest, "WISP_INGEST_TOKEN_FILE": token}
    code["env"] = [{"name": name, "value": value} for name, value in told.items()] + code["env"]
