"""Requests to the Kubernetes API: plain JSON objects in and out.

The official client carries them (its configuration, TLS, token refresh); its generated models are left aside, because
importing them costs 90 MiB and they drop fields that they don't know. Each request is one method here, so that a count
of `writes` is a count of what the operator does to the cluster.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode
from urllib.request import getproxies

import msgspec
import prometheus_client
from kubernetes.aio import config as kube_config
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from wisp_api import names

from wisp_operator.decoding import decode

Object = dict[str, Any]
"""A Kubernetes object as JSON."""

_NOT_FOUND: Final = 404
_CONFLICT: Final = 409
_ERROR: Final = 400
_TOO_MANY: Final = 429
_SERVER_ERROR: Final = 500
_PATIENCE: Final = 5
"""How often a request is sent that the API is too busy for."""
OBJECTS: Final = 50
"""Whole objects that are asked for at once: each may have 1.5 MB, and a tenant as many as he likes."""
_writes = prometheus_client.Counter(
    "wisp_operator_api_writes", "Write requests to the Kubernetes API", ["verb", "resource"]
)


class Resource(NamedTuple):
    """Where a kind's objects are found."""

    api_version: str
    kind: str
    plural: str

    def path(self, namespace: str | None, name: str | None = None) -> str:
        """URL path of one object, or of all of a namespace, or (None) of the cluster."""
        root = "/api/" if "/" not in self.api_version else "/apis/"
        parts = [root + self.api_version]
        if namespace:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        if name:
            parts.append(quote(name, safe=""))
        return "/".join(parts)


FUNCTIONS: Final = Resource(names.API_VERSION, "Function", "functions")
SUBSCRIPTIONS: Final = Resource(names.API_VERSION, "Subscription", "subscriptions")
FUNCTION_QUOTAS: Final = Resource(names.API_VERSION, "FunctionQuota", "functionquotas")
KNATIVE_SERVICES: Final = Resource("serving.knative.dev/v1", "Service", "services")
REVISIONS: Final = Resource("serving.knative.dev/v1", "Revision", "revisions")
SERVICES: Final = Resource("v1", "Service", "services")
PODS: Final = Resource("v1", "Pod", "pods")
CONFIG_MAPS: Final = Resource("v1", "ConfigMap", "configmaps")
SECRETS: Final = Resource("v1", "Secret", "secrets")
DEPLOYMENTS: Final = Resource("apps/v1", "Deployment", "deployments")
NAMESPACES: Final = Resource("v1", "Namespace", "namespaces")
JOBS: Final = Resource("batch/v1", "Job", "jobs")
LEASES: Final = Resource("coordination.k8s.io/v1", "Lease", "leases")
VALIDATING_WEBHOOKS: Final = Resource(
    "admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations"
)
EVENTS: Final = Resource("v1", "Event", "events")


class ApiError(Exception):
    """Raised when the Kubernetes API refuses a request; `reason` is the API's own constant."""

    def __init__(self, status: int, body: bytes) -> None:
        """From the answer: its status and its body, a `Status` object where it comes from the API itself."""
        try:
            answer = json.loads(body)
        except ValueError:
            answer = {}
        self.status = status
        self.reason: str = answer.get("reason", "")
        self.details: Object = answer.get("details") or {}
        super().__init__(answer.get("message") or body.decode(errors="replace")[:500])

    @property
    def unknown_kind(self) -> bool:
        """Whether the cluster doesn't have the kind at all (as against the object)."""
        return self.status == _NOT_FOUND and not self.details.get("name")

    @property
    def passing(self) -> bool:
        """Whether it says nothing of the object, so that trying again is all there is to do; a webhook that is away is told of."""
        busy = self.status in {_CONFLICT, _TOO_MANY}
        return busy or (self.status >= _SERVER_ERROR and "webhook" not in str(self))

    @property
    def exists(self) -> bool:
        """Whether an object of that name is there already."""
        return self.reason == "AlreadyExists"

    @property
    def terminating(self) -> bool:
        """Whether the namespace is being deleted and takes nothing new."""
        return any(cause.get("reason") == "NamespaceTerminating" for cause in self.details.get("causes", []))


class Api:
    """A connection to the Kubernetes API."""

    def __init__(self, client: ApiClient) -> None:
        """`connect` makes one."""
        self._client = client
        self._written: dict[str, str] = {}

    def wrote(self, item: Mapping[str, Any]) -> bool:
        """Whether an object seen in a watch is the very version that `remember` was given."""
        meta = item["metadata"]
        return bool(self._written.get(meta["uid"]) == meta["resourceVersion"])

    def forget(self, item: Mapping[str, Any] | None = None) -> None:
        """Drop what is remembered of an object that is gone, or of all; what is forgotten is looked at once more than it need be."""
        if item is None:
            self._written.clear()
        else:
            self._written.pop(item["metadata"]["uid"], None)

    def remember(self, item: Mapping[str, Any]) -> None:
        """Note an object as a write returned it, of which all that the caller goes by is as it was when it looked."""
        self._written[item["metadata"]["uid"]] = item["metadata"]["resourceVersion"]

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()  # type: ignore[no-untyped-call]

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        """The object, or None where it does not exist.

        Raises:
            ApiError: anything else, an unknown kind included.
        """
        try:
            return await self._send("GET", resource.path(namespace, name))
        except ApiError as error:
            if error.status == _NOT_FOUND and not error.unknown_kind:
                return None
            raise

    async def list(self, resource: Resource, namespace: str | None, labels: str = "") -> list[Object]:
        """All objects (of a namespace, or of the cluster) with these labels; without what of them is heavy and nobody asks a list for.

        Raises:
            ApiError: refused, or the kind is unknown.
        """
        query = {"limit": str(OBJECTS)} | ({"labelSelector": labels} if labels else {})
        found: list[Object] = []
        while True:
            answer = await self._send("GET", resource.path(namespace), query)
            for item in answer["items"] or []:
                _lighten(resource, item)
                found.append({"apiVersion": resource.api_version, "kind": resource.kind} | item)
            if not (more := answer["metadata"].get("continue")):
                return found
            query["continue"] = more

    async def stream(self, path: str, query: dict[str, str], accept: str, seconds: float) -> AsyncGenerator[bytes]:
        """The lines of an answer that goes on, for so many seconds at most.

        Raises:
            ApiError: refused.
            OSError, TimeoutError, aiohttp.ClientError: the connection broke.
        """
        headers = {"Accept": accept}
        await self._client.update_params_for_auth(headers, [], ["BearerToken"], path, "GET", None)
        url = f"{self._client.configuration.host}{path}?{urlencode(query)}"
        answer = await self._client.call_api("GET", url, headers, None, _request_timeout=seconds)
        try:
            if answer.status >= _ERROR:
                raise ApiError(answer.status, await answer.read())  # type: ignore[no-untyped-call]
            held = b""
            async for chunk in answer.response.content.iter_any():  # not by lines: aiohttp takes no long ones
                *lines, held = (held + chunk).split(b"\n")
                for line in lines:
                    yield line
        finally:
            answer.response.close()

    async def read(self, path: str) -> Object:
        """What a path that is no resource answers, as `/openid/v1/jwks`.

        Raises:
            ApiError: refused.
        """
        return await self._send("GET", path)

    async def apply(self, resource: Resource, wanted: Object) -> Object:
        """Server-side apply: make the fields of `wanted` what they say there, and take away those applied before that it leaves out.

        Raises:
            ApiError: refused, by a validating webhook for instance.
        """
        meta = wanted["metadata"]
        _writes.labels("apply", resource.plural).inc()
        query = {"fieldManager": names.FIELD_MANAGER, "force": "true"}
        path = resource.path(meta["namespace"], meta["name"])
        return await self._send("PATCH", path, query, wanted, "application/apply-patch+yaml")

    async def create(self, resource: Resource, namespace: str, wanted: Object) -> Object:
        """Create the object.

        Raises:
            ApiError: refused; 409 where it exists.
        """
        _writes.labels("create", resource.plural).inc()
        return await self._send("POST", resource.path(namespace), {"fieldManager": names.FIELD_MANAGER}, wanted)

    async def replace(self, resource: Resource, namespace: str, wanted: Object) -> Object:
        """Replace the object; with a resourceVersion in it only if it is still that version.

        Raises:
            ApiError: refused; 409 where someone else changed it.
        """
        _writes.labels("replace", resource.plural).inc()
        path = resource.path(namespace, wanted["metadata"]["name"])
        return await self._send("PUT", path, {"fieldManager": names.FIELD_MANAGER}, wanted)

    async def put(self, resource: Resource, wanted: Object) -> None:
        """Make the object all that `wanted` says, and nothing else, whatever it was.

        For Secrets of tenants: who may patch is answered with what stands there besides, who may replace and create is not.

        Raises:
            ApiError: refused; 409 where someone else created it meanwhile.
        """
        namespace = wanted["metadata"]["namespace"]
        try:
            await self.replace(resource, namespace, wanted)
        except ApiError as error:
            if error.status != _NOT_FOUND or error.unknown_kind:
                raise
            await self.create(resource, namespace, wanted)

    async def merge(
        self, resource: Resource, namespace: str | None, name: str, patch: Object, subresource: str = ""
    ) -> Object | None:
        """JSON merge patch; None where the object is gone.

        Raises:
            ApiError: refused; 409 where the patch names a resourceVersion that has passed.
        """
        _writes.labels("merge", resource.plural).inc()
        path = resource.path(namespace, name) + (f"/{subresource}" if subresource else "")
        query = {"fieldManager": names.FIELD_MANAGER}
        try:
            return await self._send("PATCH", path, query, patch, "application/merge-patch+json")
        except ApiError as error:
            if error.status == _NOT_FOUND:
                return None
            raise

    async def delete(self, resource: Resource, namespace: str, name: str) -> None:
        """Delete the object and what it owns; fine where it is gone already.

        Raises:
            ApiError: refused.
        """
        _writes.labels("delete", resource.plural).inc()
        try:
            await self._send("DELETE", resource.path(namespace, name), {"propagationPolicy": "Background"})
        except ApiError as error:
            if error.status not in {_NOT_FOUND, _CONFLICT}:
                raise

    async def fetch(
        self,
        path: str,
        query: dict[str, str] | None = None,
        *,
        accept: str = "application/json, */*",
        method: str = "GET",
        body: Object | None = None,
        content: str = "application/json",
    ) -> bytes:
        """The answer to a request as it came; tried again while the API is too busy for it.

        Raises:
            ApiError: refused.
        """
        url = self._client.configuration.host + path + (f"?{urlencode(query)}" if query else "")
        for _ in range(_PATIENCE):
            headers = {"Accept": accept, "Content-Type": content}
            await self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
            answer = await self._client.call_api(method, url, headers, body, _request_timeout=30)
            raw: bytes = await answer.read()  # type: ignore[no-untyped-call]
            if answer.status != _TOO_MANY:
                break
            await asyncio.sleep(1)  # as the API's Retry-After says: it is busy, or a kind is only just there
        if answer.status >= _ERROR:
            raise ApiError(answer.status, raw)
        return raw

    async def _send(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: Object | None = None,
        content: str = "application/json",
    ) -> Object:
        raw = await self.fetch(path, query, method=method, body=body, content=content)
        try:
            return decode(raw, Object)
        except msgspec.DecodeError as error:
            raise ConnectionError(f"the answer to {method} {path} is no JSON: {error}") from error


def _lighten(resource: Resource, item: Object) -> None:
    """Take away who wrote which field, and of a Function its code, variables and annotations."""
    item["metadata"].pop("managedFields", None)
    if resource == FUNCTIONS:
        item["metadata"].pop("annotations", None)
        item["spec"].pop("env", None)
        item["spec"].get("code", {}).pop("files", None)


async def connect() -> Api:
    """Connect as the pod's ServiceAccount, or outside a cluster as the kubeconfig says (KUBECONFIG or ~/.kube/config).

    Raises:
        kubernetes.aio.config.ConfigException: neither is there.
    """
    # Else the client looks for proxies in the environment, and for a netrc in the home, at each request.
    configuration = Configuration(client_session_kwargs={"trust_env": bool(getproxies())})
    try:
        kube_config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except kube_config.ConfigException:
        await kube_config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    return Api(ApiClient(configuration))
