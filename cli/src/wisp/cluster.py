"""Requests to the Kubernetes API: plain JSON objects in and out, over the standard library.

Invariant: whatever goes wrong leaves here as a `CommandError` whose message is one sentence for people.
"""

import contextlib
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from http.client import HTTPException, HTTPResponse
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

from wisp_api import names

from wisp import kubeconfig
from wisp.errors import RefusedError, UnreachableError

Object = dict[str, Any]
"""A Kubernetes object as JSON."""

FIELD_MANAGER: Final = "wisp-cli"
_ANNOTATOR: Final = f"{FIELD_MANAGER}-orders"
"""Another manager, because what `apply` leaves out it takes away."""
_NOT_FOUND: Final = 404
_TOKEN_SECONDS: Final = 600
"""The shortest life that Kubernetes gives a token."""
_CONFLICT: Final = 409
_TOO_MANY: Final = 429
_PATIENCE: Final = 5
"""How often a request is sent that the API is too busy for."""
_APPLY: Final = "application/apply-patch+yaml"
_MERGE: Final = "application/merge-patch+json"
"""The only content that is sent (JSON is YAML): objects to apply."""
_TABLE: Final = "application/json;as=Table;v=v1;g=meta.k8s.io"
_NAMES: Final = 500
_TIMEOUT: Final = 30
"""Seconds to wait for the API's next byte."""


class Kind(NamedTuple):
    """Where a kind's objects are found."""

    api_version: str
    kind: str
    plural: str

    def path(self, namespace: str | None, name: str = "") -> str:
        """URL path of one object, or of all of a namespace, None: of every one."""
        root = "/apis" if "/" in self.api_version else "/api"
        within = f"/namespaces/{quote(namespace)}" if namespace is not None else ""
        path = f"{root}/{self.api_version}{within}/{self.plural}"
        return f"{path}/{quote(name)}" if name else path


FUNCTION: Final = Kind(names.API_VERSION, "Function", "functions")
SUBSCRIPTION: Final = Kind(names.API_VERSION, "Subscription", "subscriptions")
KNATIVE_SERVICE: Final = Kind("serving.knative.dev/v1", "Service", "services")
REVISION: Final = Kind("serving.knative.dev/v1", "Revision", "revisions")
SECRET: Final = Kind("v1", "Secret", "secrets")
POD: Final = Kind("v1", "Pod", "pods")
NODE: Final = Kind("v1", "Node", "nodes")
SERVICE: Final = Kind("v1", "Service", "services")
EVENT: Final = Kind("v1", "Event", "events")
OURS: Final = {kind.kind: kind for kind in (FUNCTION, SUBSCRIPTION)}


class _StayHere(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: a function's is its answer, and would have its caller's token sent to wherever it points."""

    def redirect_request(self, *_: Any) -> None:
        """Don't."""


class Cluster:
    """One namespace of the cluster that the kubeconfig leads to."""

    def __init__(self, namespace: str | None = None) -> None:
        """Of the namespace given, or the context's.

        Raises:
            UnreachableError: there is no kubeconfig.
            UsageError: the kubeconfig is wrong.
        """
        self._access = kubeconfig.load(namespace)
        self.namespace = self._access.namespace
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=self._access.context), _StayHere()
        )

    def get(self, kind: Kind, name: str) -> Object | None:
        """The object, or None where there is none.

        Raises:
            CommandError: anything else, a kind that the cluster doesn't know included.
        """
        try:
            return self._json("GET", kind.path(self.namespace, name))
        except RefusedError as error:
            if error.status == _NOT_FOUND:
                return None
            raise

    def list(self, kind: Kind, labels: str = "", fields: str = "", *, everywhere: bool = False) -> list[Object]:
        """The objects of the namespace, or of all, with these labels and fields.

        Raises:
            CommandError: refused.
        """
        asked = {"labelSelector": labels, "fieldSelector": fields}
        path = kind.path(None if everywhere else self.namespace)
        answer = self._json("GET", path, {key: text for key, text in asked.items() if text})
        return [{"apiVersion": kind.api_version, "kind": kind.kind} | item for item in answer["items"]]

    def names_of(self, kind: Kind) -> tuple[str, ...]:
        """The names of the namespace's objects, some hundreds at most: what a table of them shows, without the objects.

        Raises:
            CommandError: refused.
        """
        query = {"includeObject": "None", "limit": str(_NAMES)}
        with self._open("GET", kind.path(self.namespace), query, accept=_TABLE) as answer, _told(self._access.server):
            return tuple(row["cells"][0] for row in json.loads(answer.read())["rows"])

    def apply(self, wanted: Object, *, force: bool) -> Object:
        """Server-side apply: make the fields of `wanted` what they say there; `force` takes over those that others set.

        Raises:
            RefusedError: the object is invalid, or (409) somebody else owns a field.
        """
        kind = OURS[wanted["kind"]]
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict", "force": str(force).lower()}
        path = kind.path(self.namespace, wanted["metadata"]["name"])
        return self._json("PATCH", path, query, wanted)

    def annotate(self, kind: Kind, name: str, annotation: str, text: str) -> Object:
        """Set an annotation of an object that is there, and nothing else.

        Raises:
            RefusedError: not allowed.
        """
        wanted = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"annotations": {annotation: text}}}
        query = {"fieldManager": _ANNOTATOR, "force": "true"}
        return self._json("PATCH", kind.path(self.namespace, name), query, wanted)

    def patch(self, kind: Kind, name: str, patch: Object) -> Object:
        """JSON merge patch: null takes a field away.

        Raises:
            RefusedError: what comes of it is invalid, or the object is gone.
        """
        path = kind.path(self.namespace, name)
        return self._json("PATCH", path, {"fieldManager": FIELD_MANAGER}, patch, _MERGE)

    def token(self, account: str, audience: str) -> str:
        """A short-lived token of a ServiceAccount of the namespace, for one audience.

        Raises:
            RefusedError: there is no such account, or we may not act as it.
        """
        path = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/{quote(account, safe='')}/token"
        spec = {"audiences": [audience], "expirationSeconds": _TOKEN_SECONDS}
        wanted = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        made: str = self._json("POST", path, None, wanted, "application/json")["status"]["token"]
        return made

    def delete(self, kind: Kind, name: str) -> bool:
        """Delete the object and what it owns; False where there is none.

        Raises:
            RefusedError: not allowed.
        """
        try:
            self._json("DELETE", kind.path(self.namespace, name), {"propagationPolicy": "Background"})
        except RefusedError as error:
            if error.status == _NOT_FOUND:
                return False
            raise
        return True

    @contextlib.contextmanager
    def lines(self, path: str, query: Mapping[str, str]) -> Iterator[Iterator[bytes]]:
        """The lines of an answer as they come; a followed log has no end and may be silent for long.

        Raises:
            CommandError: refused.
        """
        timeout = None if query.get("follow") else _TIMEOUT
        with self._open("GET", path, query, timeout=timeout) as answer:
            yield iter(answer)

    def proxy(
        self, namespace: str, service: str, request: urllib.request.Request, path: str, seconds: float
    ) -> HTTPResponse:
        """The answer of a service behind the API server, whatever its status; `request` gives method, headers and body, `service` is `name:port`.

        Raises:
            UnreachableError: the API server is away.
        """
        request.full_url = f"{self._access.server}{SERVICE.path(namespace, f'http:{service}')}/proxy{path}"
        for name, value in self._access.headers.items():
            request.add_unredirected_header(name, value)
        try:
            return self._send(request, seconds)
        except urllib.error.HTTPError as error:
            return error  # type: ignore[return-value] # it is the answer, with a status that urllib calls an error

    def _json(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content: str = _APPLY,
    ) -> Object:
        with self._open(method, path, query or {}, body, content=content) as answer, _told(self._access.server):
            found: Object = json.loads(answer.read())
            return found

    def _open(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Object | None = None,
        *,
        timeout: float | None = _TIMEOUT,
        content: str = _APPLY,
        accept: str = "application/json",
    ) -> HTTPResponse:
        url = self._access.server + path + (f"?{urlencode(query)}" if query else "")
        data = json.dumps(body).encode() if body is not None else None
        headers = {"Accept": accept, "Content-Type": content, **self._access.headers}
        for attempt in range(_PATIENCE):
            try:
                return self._send(urllib.request.Request(url, data, headers, method=method), timeout)  # noqa: S310 - the kubeconfig's server
            except urllib.error.HTTPError as error:
                if error.code != _TOO_MANY or attempt == _PATIENCE - 1:
                    raise self._refusal(error) from None
                time.sleep(1)  # as the API's Retry-After says: it is busy, or a kind is only just there
        raise AssertionError

    def _send(self, request: urllib.request.Request, timeout: float | None) -> HTTPResponse:
        with _told(self._access.server):
            answer: HTTPResponse = self._opener.open(request, timeout=timeout)
            return answer

    def _refusal(self, error: urllib.error.HTTPError) -> RefusedError | UnreachableError:
        """What the API's refusal means."""
        raw = error.read()
        try:
            status = json.loads(raw)
            message, details = status["message"], status.get("details") or {}
        except (ValueError, KeyError, TypeError):
            message, details = " ".join(raw.decode(errors="replace").split())[:500], {}
        causes = [
            (cause.get("field", ""), cause["message"]) for cause in details.get("causes", []) if "message" in cause
        ]
        if error.code == _NOT_FOUND and not details.get("name"):
            text = f"the cluster at {self._access.server} doesn't know this kind ({_kind(error.url)}): install Wisp on it first"
            return UnknownKindError(error.code, text, causes)
        return RefusedError(error.code, _SENTENCES.get(error.code, "{}").format(message), causes)


class UnknownKindError(RefusedError):
    """Raised when the cluster doesn't have the kind at all, as against the object; never 404, so that nobody takes it for an absent object."""

    def __init__(self, _status: int, message: str, causes: list[tuple[str, str]]) -> None:
        """From the sentence."""
        super().__init__(0, message, causes)


_SENTENCES: Final = {
    401: "the cluster doesn't accept the kubeconfig's credentials ({}): log in again",
    403: "not allowed: {}. Ask for the role wisp-editor (or wisp-viewer, to look) in this namespace",
    _CONFLICT: "{}",
}


def _kind(url: str) -> str:
    """`functions.wisp.dev` of a request's URL."""
    parts = url.partition("?")[0].partition("/api")[2].split("/")
    return f"{parts[5]}.{parts[1]}" if len(parts) > 5 else url  # noqa: PLR2004 - s/GROUP/VERSION/namespaces/NS/PLURAL


@contextlib.contextmanager
def _told(server: str) -> Iterator[None]:
    """Turn what a connection dies of into a sentence."""
    try:
        yield
    except urllib.error.HTTPError:
        raise
    except urllib.error.URLError as error:
        reason = error.reason
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise UnreachableError(f"the certificate of {server} isn't trusted: {reason.verify_message}") from None
        raise UnreachableError(f"the cluster at {server} can't be reached: {_short(reason)}") from None
    except (OSError, HTTPException, ValueError) as error:
        raise UnreachableError(f"the connection to {server} broke: {_short(error)}") from None


def _short(error: object) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
