"""Subscriptions' sinks: found by what an Addressable says of itself, or admitted by the installation (decision 0052).

Invariant: what a tenant writes, into a Subscription or into the status of an object of its own, never has the router call an address of the
router's machine or link, nor a host outside of the cluster that the installation does not admit. The router checks the addresses.
"""

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from wisp_api import conditions
from wisp_api.route import Target
from wisp_api.sink import Sink, SinkReference, admitted

from wisp_operator.api import Api, ApiError, Object, Resource
from wisp_operator.config import OperatorConfig
from wisp_operator.sources import Wish
from wisp_operator.status import Aspect, mark_false

CLUSTER: Final = "cluster"
PUBLIC: Final = "public"
_FORBIDDEN: Final = 403


@dataclass(frozen=True)
class FoundSink:
    """A sink's target, or why there is none."""

    target: Target | None = None
    trouble: Aspect | None = None


def sink_mistake(wish: Wish, allowed: list[str]) -> str:
    """What is wrong with a sink's URL, empty if nothing."""
    uri = wish.spec.sink.uri if wish.spec.sink else None
    return f"spec.sink.uri: {_not_admitted(uri)}" if uri and not admitted(uri, allowed) else ""


async def find_sinks(api: Api, config: OperatorConfig, wishes: list[Wish]) -> dict[str, FoundSink]:
    """The sinks of those Subscriptions that have one, by Subscription.

    Raises:
        ApiError: the Kubernetes API could not say now.
    """
    found = {}
    for wish in wishes:
        if wish.spec.sink and not wish.deleting:
            namespace = wish.live["metadata"]["namespace"]
            found[wish.name] = await _find(api, config, namespace, wish.spec.sink)
    return found


async def _find(api: Api, config: OperatorConfig, namespace: str, sink: Sink) -> FoundSink:
    if sink.uri:
        if admitted(sink.uri, config.allowed_sinks):
            return FoundSink(Target(url=sink.uri, reach=PUBLIC))
        return _trouble(conditions.SINK_NOT_ALLOWED, f"spec.sink.uri: {_not_admitted(sink.uri)}; the events wait")
    assert sink.ref  # noqa: S101 - the CRD admits exactly one
    if (sink.ref.api_version, sink.ref.kind) == ("v1", "Service"):
        return FoundSink(Target(url=f"http://{sink.ref.name}.{namespace}.svc.{config.cluster_domain}/", reach=CLUSTER))
    what = f"spec.sink.ref: {sink.ref.kind} {sink.ref.name}"
    try:
        item = await _read(api, namespace, sink.ref)
    except ApiError as error:
        if error.status != _FORBIDDEN:
            raise
        return _trouble(
            conditions.SINK_NOT_READABLE,
            f"{what}: the operator may not read this kind: a ClusterRole with the label duck.knative.dev/addressable: "
            '"true" has to grant get on it; the events wait',
        )
    if item is None:
        return _trouble(conditions.SINK_NOT_FOUND, f"{what}: there is none in this namespace; the events wait for it")
    return _addressed(item, what, config)


async def _read(api: Api, namespace: str, ref: SinkReference) -> Object | None:
    """The object, None where there is no such object or kind.

    Raises:
        ApiError: refused, or not now.
    """
    path = f"/apis/{ref.api_version}" if "/" in ref.api_version else f"/api/{ref.api_version}"
    try:
        kinds = (await api.read(path))["resources"]
        plural = next(
            (one["name"] for one in kinds if one["kind"] == ref.kind and one["namespaced"] and "/" not in one["name"]),
            None,
        )
        return await api.get(Resource(ref.api_version, ref.kind, plural), namespace, ref.name) if plural else None
    except ApiError as error:
        if error.unknown_kind:
            return None
        raise


def _addressed(item: Object, what: str, config: OperatorConfig) -> FoundSink:
    url = ((item.get("status") or {}).get("address") or {}).get("url") or ""
    if not url:
        text = f"{what}: it has no status.address.url (yet), so nothing can be sent to it; the events wait"
        return _trouble(conditions.SINK_NOT_ADDRESSABLE, text)
    if _in_cluster(url, config.cluster_domain):
        return FoundSink(Target(url=url, reach=CLUSTER))
    if admitted(url, config.allowed_sinks):
        return FoundSink(Target(url=url, reach=PUBLIC))
    text = f"{what}: its status.address.url is no Service of this cluster, and {_not_admitted(url)}; the events wait"
    return _trouble(conditions.SINK_NOT_ALLOWED, text)


def _in_cluster(url: str, domain: str) -> bool:
    parts = urlsplit(url)
    name = parts.hostname or ""
    return parts.scheme in {"http", "https"} and name.endswith((".svc", f".svc.{domain}"))


def _not_admitted(uri: str) -> str:
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc} is not among the hosts that an administrator admits (chart value sinks.allowed)"


def _trouble(reason: str, message: str) -> FoundSink:
    return FoundSink(trouble=mark_false(reason, message))
