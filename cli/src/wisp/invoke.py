"""`wisp invoke`: call a function from wherever the kubeconfig works.

A public function is called at its URL. Where that doesn't answer, and for one that only the cluster can reach, the API server carries the
request (its `services/proxy`) to Knative's activator, which starts a pod for a function that has none, or, for people who may not reach
that, to the function's own Service, which answers only while a pod runs. Where neither is open, `NoWayError` says why, and the platform's
ingest is asked (`asynchronous.call`).

Invariant: a request is sent on to the next way only when the one before has not brought it to the function.
"""

import json
import os
import time
import urllib.request
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from wisp_api import caller

from wisp import output
from wisp.cluster import FUNCTION, Cluster, Object
from wisp.errors import CommandError, RefusedError, UsageError
from wisp.logs import find_report, render

REQUEST_ID: Final = "wisp-request-id"
"""By this header of an answer one knows that the function's runtime gave it, and no proxy on the way."""
_ACTIVATOR: Final = ("knative-serving", "activator-service")
_CONNECT_SECONDS: Final = 3
WAIT_SECONDS: Final = 150
"""What a cold start may take besides the function's own time."""
_LOG_SECONDS: Final = 5
"""How long the lines of an invocation may take to be seen."""
_TRIED: Final = "error trying to reach service"
"""What the API server says where it tried: a pod may have had the request."""
_ERROR: Final = 400
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404
_SERVER_ERROR: Final = 500
_UNAVAILABLE: Final = 503


@dataclass(frozen=True)
class Call:
    """What is sent."""

    method: str
    path: str
    """With its query, from `/`."""
    headers: Mapping[str, str]
    body: bytes | None


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def request_id(self) -> str:
        """The runtime's id of the invocation; empty where something else answered."""
        return self.headers.get(REQUEST_ID, "")

    @property
    def failed(self) -> bool:
        """Whether the caller is told of an error."""
        return self.status >= _ERROR

    def json(self) -> Any:
        """The body decoded, None where it is no JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    def as_json(self) -> dict[str, Any]:
        """The answer for programs; a body that is no JSON is text."""
        decoded = self.json()
        body = decoded if decoded is not None else self.body.decode(errors="replace")
        return {"status": self.status, "requestId": self.request_id, "headers": self.headers, "body": body}


def make_call(payload: bytes | None, path: str, *, as_event: bool) -> Call:
    """A GET without a payload, a POST with one; a payload that is a CloudEvent goes as one, `as_event` makes one of any other.

    Raises:
        UsageError: an event whose payload is no JSON.
    """
    if not path.startswith("/"):
        raise UsageError(f"--path {path}: write a path from /, as '/?name=Ada'")
    if payload is None and not as_event:
        return Call("GET", path, {}, None)
    try:
        content = json.loads(payload) if payload is not None else None
    except ValueError as error:
        if as_event:
            raise UsageError(f"an event's data is JSON, and the payload is not: {error}") from None
        return Call("POST", path, {"Content-Type": "application/octet-stream"}, payload)
    is_event = isinstance(content, dict) and "specversion" in content
    if not (is_event or as_event):
        return Call("POST", path, {"Content-Type": "application/json"}, payload)
    if not is_event:
        content = _make_event(content)
    return Call("POST", path, {"Content-Type": "application/cloudevents+json"}, json.dumps(content).encode())


def _make_event(data: Any) -> Object:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    event = {"specversion": "1.0", "id": str(uuid.uuid4()), "source": "urn:wisp:cli", "type": "dev.wisp.invoke"}
    return event | {"time": now, "datacontenttype": "application/json", "data": data}


@dataclass(frozen=True)
class Credentials:
    """Who calls: a token that somebody else made, or else a ServiceAccount of the function's namespace."""

    token: str = ""
    service_account: str = "default"


def read_token(file: str | None) -> str:
    """The token in a file, or else in WISP_TOKEN; never on the command line, which every process of the machine can read.

    Raises:
        UsageError: there is none in the file.
    """
    if file is None:
        return os.environ.get("WISP_TOKEN", "").strip()
    try:
        token = Path(file).read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise UsageError(f"--token-file {file} can't be read: {error}") from None
    if not token or any(letter.isspace() for letter in token):
        raise UsageError(f"--token-file {file}: write the token into it, and nothing else")
    return token


class NoWayError(CommandError):
    """Raised when the API server has no way to a function, and it did not get the call; the message says why."""

    def __init__(self, message: str, function: Object, revision: str, call: Call) -> None:
        """What was to be called, and with what."""
        super().__init__(message)
        self.function, self.revision, self.call = function, revision, call


def invoke(cluster: Cluster, name: str, call: Call, who: Credentials) -> Answer:
    """Call a function.

    Raises:
        NoWayError: the API server lets us reach neither what starts its pods nor one that runs.
        CommandError: there is no such function, no way to it, or no token for it.
    """
    function = cluster.get(FUNCTION, name)
    if function is None:
        raise CommandError(f"there is no function {name} in namespace {cluster.namespace}: `wisp list` shows them")
    if token := who.token or _own_token(cluster, function, who.service_account):
        call = replace(call, headers={**call.headers, caller.HEADER: f"Bearer {token}"})
    seconds = function["spec"].get("timeoutSeconds", 30) + WAIT_SECONDS
    return _direct(function, call, seconds) or _through_api(cluster, function, call, seconds)


def _own_token(cluster: Cluster, function: Object, account: str) -> str:
    """The token that the function asks for, where the cluster can make it; empty where it asks for none."""
    auth = function["spec"].get("auth") or {}
    if auth.get("type") == "jwt":
        raise CommandError(
            f"the function asks for a token of {auth['issuer']} for {' or '.join(auth['audiences'])}: "
            "give it in a file (--token-file) or in WISP_TOKEN"
        )
    if auth.get("type") != "token":
        return ""
    try:
        return cluster.token(account, caller.audience(cluster.namespace, function["metadata"]["name"]))
    except RefusedError as error:
        raise CommandError(
            f"the function asks for a token, and none can be had for ServiceAccount {account} of {cluster.namespace}, "
            f"which asks for the right to create serviceaccounts/token (--service-account names another): {error}"
        ) from None


def _direct(function: Object, call: Call, seconds: float) -> Answer | None:
    """The answer at the function's URL; None where that leads nowhere, or to somebody who doesn't know the function."""
    url = urlsplit((function.get("status") or {}).get("url") or "")
    if function["spec"].get("visibility") != "public" or not url.hostname:
        return None
    kind = HTTPSConnection if url.scheme == "https" else HTTPConnection
    connection = kind(url.hostname, url.port, timeout=_CONNECT_SECONDS)
    try:
        connection.connect()
    except OSError:
        return None
    try:
        connection.sock.settimeout(seconds)
        connection.request(call.method, call.path, call.body, dict(call.headers))
        answer = read_answer(connection.getresponse())
    except (OSError, HTTPException) as error:
        raise CommandError(
            f"{url.geturl()} took the request and gave no answer: {error or type(error).__name__}"
        ) from None
    finally:
        connection.close()
    # What the function's runtime answers it marks; a proxy's 5xx may have come after the function had the request.
    stranger = not answer.request_id and answer.status < _SERVER_ERROR and function["spec"]["runtime"] != "container"
    return None if stranger else answer


def _through_api(cluster: Cluster, function: Object, call: Call, seconds: float) -> Answer:
    status = function.get("status") or {}
    shares = status.get("traffic") or []
    revision = max(shares, key=lambda share: share["percent"])["revision"] if shares else status.get("revision")
    if not revision:
        ready = output.condition(function)
        raise CommandError(f"the function has not started yet: {ready.get('message') or 'see wisp describe'}")
    marks = {"Knative-Serving-Namespace": cluster.namespace, "Knative-Serving-Revision": revision}
    host = urlsplit(status.get("url") or "").netloc
    headers = {**call.headers, **marks} | ({"Host": host} if host else {})

    def send(namespace: str, service: str) -> Answer:
        request = urllib.request.Request("http://function", call.body, headers, method=call.method)
        return read_answer(cluster.proxy(namespace, f"{service}:80", request, call.path, seconds))

    answer = send(*_ACTIVATOR)
    if _from_api(answer) in {_FORBIDDEN, _NOT_FOUND}:
        answer = send(cluster.namespace, f"{revision}-private")
    if not (refused := _from_api(answer)):
        return answer
    message = _explain_refusal(answer, cluster.namespace)
    if refused in {_FORBIDDEN, _NOT_FOUND, _UNAVAILABLE} and _TRIED not in message:
        raise NoWayError(message, function, revision, call)
    raise CommandError(message)


def _explain_refusal(answer: Answer, namespace: str) -> str:
    """Why the API server did not bring a call to its function."""
    status, message = answer.status, answer.json()["message"]
    if status == _UNAVAILABLE:
        message = f"no pod of the function runs, and waking it asks for the right to services/proxy in {_ACTIVATOR[0]} ({message})"
    elif status == _FORBIDDEN:
        message = f"calling it through the API server asks for the right to services/proxy in {namespace} ({message})"
    return f"the function can't be reached from here: {message}"


def _from_api(answer: Answer) -> int:
    """The status of an answer that the API server gave in the function's place; 0 for others."""
    found = answer.json() if answer.failed and not answer.request_id else None
    own = isinstance(found, dict) and (found.get("kind"), found.get("apiVersion")) == ("Status", "v1")
    return answer.status if own else 0


def read_answer(answer: HTTPResponse) -> Answer:
    """A whole answer."""
    with answer:
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())


def tail(cluster: Cluster, name: str, request_id: str) -> list[str]:
    """The log lines of one invocation, once the runtime's report of it is there; what there is after 5 seconds."""
    deadline = time.monotonic() + _LOG_SECONDS
    while True:
        lines, complete = find_report(cluster, name, request_id)
        if complete or time.monotonic() > deadline:
            return [render(line) for line in lines]
        time.sleep(0.2)


def explain(answer: Answer) -> str:
    """A function's error as people read it: type, message, the user's stack."""
    found = answer.json()
    if not isinstance(found, dict) or "errorMessage" not in found:
        text = answer.body.decode(errors="replace").strip()
        return f"the function answered {answer.status}: {text}" if text else f"the function answered {answer.status}"
    frames = found.get("stackTrace") or found.get("trace") or []
    head = f"the function failed: {found.get('errorType', 'Error')}: {found['errorMessage']}"
    return "\n".join([head, *(str(frame).rstrip() for frame in frames)])
