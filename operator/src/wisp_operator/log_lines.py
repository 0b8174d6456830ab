"""Log lines that outlive their pod (decision 0018): what the front in a Function's pods is told of where they go.

Pure. The token is of the pod's own ServiceAccount, names the pod, and is good for handing in log lines and for nothing else; the code, which
runs beside the front, could use it for that alone.
"""

from wisp_api import names

from wisp_operator.api import Object
from wisp_operator.pod_token import mount_token


def add_log_lines(pod_spec: Object, function: Object, ingest: str) -> None:
    """Tell the front, which is the first container, where the Function's log lines go: to the ingest at this URL."""
    meta, front = function["metadata"], pod_spec["containers"][0]
    token = mount_token(pod_spec, front, "logs", names.LOG_AUDIENCE)
    url = ingest + names.log_path(meta["namespace"], meta["name"], meta["uid"])
    told = {"WISP_LOG_URL": url, "WISP_LOG_TOKEN_FILE": token}
    front["env"] = [{"name": name, "value": value} for name, value in told.items()] + front["env"]
