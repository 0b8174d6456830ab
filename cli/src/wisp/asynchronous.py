"""`wisp invoke --async`: hand an invocation to the platform's ingest, through the API server.

The ingest takes a ServiceAccount's token; people have none, so the API makes a short one for a ServiceAccount of the namespace: whoever may
ask for that may invoke as it. The API server's proxy keeps the header `authorization` to itself, so the token goes in another.

Invariant: the id that is returned is that of an invocation that the event log has.
"""

import urllib.request
from typing import Final

from wisp_api import caller, names

from wisp.cluster import FUNCTION, Cluster
from wisp.errors import CommandError, RefusedError
from wisp.invoke import Call, Credentials, read_answer

_INGEST: Final = "wisp-ingest"
_PORT: Final = 8080
_SECONDS: Final = 60
_ACCEPTED: Final = 202


def invoke(cluster: Cluster, name: str, call: Call, who: Credentials, system: str) -> str:
    """The id of the invocation, once it is stored; `system` is the platform's namespace.

    Raises:
        CommandError: it was not taken.
    """
    function = cluster.get(FUNCTION, name)
    if function is None:
        raise CommandError(f"there is no function {name} in namespace {cluster.namespace}: `wisp list` shows them")
    if "async" not in function["spec"]:
        raise CommandError(f"function {name} takes no asynchronous invocations: write `async: {{}}` into its spec")
    token = who.token or _own_token(cluster, who.service_account)
    headers = {**call.headers, caller.HEADER: f"Bearer {token}"}
    request = urllib.request.Request("http://ingest", call.body or b"", headers, method="POST")
    path = f"/v1/namespaces/{cluster.namespace}/functions/{name}/invocations"
    answer = read_answer(cluster.proxy(system, f"{_INGEST}:{_PORT}", request, path, _SECONDS))
    told = answer.json()
    if answer.status != _ACCEPTED or not isinstance(told, dict) or "requestId" not in told:
        message = told.get("message") if isinstance(told, dict) else answer.body.decode(errors="replace").strip()
        raise CommandError(f"the invocation was not taken ({answer.status}): {message}")
    return str(told["requestId"])


def _own_token(cluster: Cluster, account: str) -> str:
    try:
        return cluster.token(account, names.AUDIENCE)
    except RefusedError as error:
        raise CommandError(
            f"no token for ServiceAccount {account} of {cluster.namespace}, in whose name to invoke (--service-account names another): {error}"
        ) from None
