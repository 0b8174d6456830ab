"""Why a new revision doesn't start, seen before the conditions say so.

Knative gives a revision its whole progress deadline, minutes, before it calls it failed; whoever waits at a terminal wants the traceback
of a wrong import at once. The kubelet knows it as soon as it puts off starting the container again.
"""

from typing import Final

from wisp.cluster import KNATIVE_SERVICE, POD, Cluster
from wisp.errors import RefusedError

_BACK_OFF: Final = "CrashLoopBackOff"


def crash(cluster: Cluster, function: str) -> str:
    """What the newest revision's container said when it last ended, if it does so again and again; empty otherwise, or where one may not look.

    Counts only when the operator has seen the newest generation: before that the newest revision is the one before.
    """
    try:
        service = cluster.get(KNATIVE_SERVICE, function) or {}
        revision = service.get("spec", {}).get("template", {}).get("metadata", {}).get("name")
        pods = cluster.list(POD, f"serving.knative.dev/revision={revision}") if revision else []
    except RefusedError:
        return ""
    for pod in pods:
        for state in (pod.get("status") or {}).get("containerStatuses") or []:
            if state["name"] == "function" and state.get("state", {}).get("waiting", {}).get("reason") == _BACK_OFF:
                ended = state.get("lastState", {}).get("terminated", {})
                return ended.get("message", "").strip() or f"exit code {ended.get('exitCode')}; `wisp logs` has more"
    return ""
