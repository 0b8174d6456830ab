"""Invocations that go to the platform's ingest, through the API server: `wisp invoke --async`, and calls that have no other way.

The ingest takes a ServiceAccount's token; people have none, so the API makes a short one for a ServiceAccount of the namespace: whoever may
ask for that may invoke as it. The API server's proxy keeps the header `authorization` to itself, so the token goes in another.

Invariant: the id that is returned is that of an invocation that the event log has, and an answer is the function's.
"""

import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import Final

from wisp_api import caller, calling, names

from wisp.cluster import FUNCTION, Cluster
from wisp.errors import CommandError, RefusedError
from wisp.invoke import WAIT_SECONDS, Answer, Call, Credentials, NoWayError, read_answer

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
    answer = _send(cluster, system, name, token, call.headers, call.body or b"", _SECONDS)
    told = answer.json()
    if answer.status != _ACCEPTED or not isinstance(told, dict) or "requestId" not in told:
        raise CommandError(f"the invocation was not taken ({answer.status}): {_said(answer)}")
    return str(told["requestId"])


def call(cluster: Cluster, closed: NoWayError, service_account: str, system: str) -> Answer:
    """The function's answer; `closed` says why there is no other way to it, `system` is the platform's namespace.

    Raises:
        CommandError: there is no way here, either.
    """
    name, spec, wanted = closed.function["metadata"]["name"], closed.function["spec"], closed.call
    if wanted.body is None or wanted.path != "/":
        raise CommandError(
            f"{closed}; the platform's ingest brings it events alone: leave out --path, and give a payload, as -d '{{}}'"
        )
    seconds = spec.get("timeoutSeconds", calling.DEFAULT_SECONDS)
    headers = {
        **wanted.headers,
        calling.TYPE: calling.RESPONSE,
        calling.REVISION: closed.revision,
        calling.TIMEOUT: str(seconds),
    }
    if caller.HEADER in headers:
        headers[calling.TOKEN] = headers.pop(caller.HEADER)
    try:
        token = _own_token(cluster, service_account)
        answer = _send(cluster, system, name, token, headers, wanted.body, seconds + WAIT_SECONDS)
    except CommandError as error:
        raise CommandError(f"{closed}; nor by way of the platform's ingest: {error}") from None
    except (OSError, HTTPException) as error:
        raise CommandError(f"the answer of function {name} was cut off: {error or type(error).__name__}") from None
    if calling.VERSION not in answer.headers:
        raise CommandError(f"{closed}; nor by way of the platform's ingest ({answer.status}): {_said(answer)}")
    if answer.failed and not answer.request_id and spec["runtime"] != "container":
        raise CommandError(f"Knative answered {answer.status} in the place of function {name}: {_said(answer)}")
    return answer


def _send(  # noqa: PLR0917 - one request
    cluster: Cluster, system: str, name: str, token: str, headers: Mapping[str, str], body: bytes, seconds: float
) -> Answer:
    """What the ingest answers, or the API server in its place."""
    sent = {**headers, caller.HEADER: f"Bearer {token}"}
    request = urllib.request.Request("http://ingest", body, sent, method="POST")
    path = f"/v1/namespaces/{cluster.namespace}/functions/{name}/invocations"
    return read_answer(cluster.proxy(system, f"{_INGEST}:{_PORT}", request, path, seconds))


def _said(answer: Answer) -> str:
    """A refusal's sentence."""
    told = answer.json()
    message = told.get("message") if isinstance(told, dict) else None
    return str(message or answer.body.decode(errors="replace").strip())


def _own_token(cluster: Cluster, account: str) -> str:
    try:
        return cluster.token(account, names.AUDIENCE)
    except RefusedError as error:
        raise CommandError(
            f"no token for ServiceAccount {account} of {cluster.namespace}, in whose name to invoke (--service-account names another): {error}"
        ) from None
