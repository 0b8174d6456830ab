"""Sinks of Subscriptions and of destinations: found by what an Addressable says of itself, or admitted by the installation (decision 0052).

Invariant: what a tenant writes, into a Subscription or into the status of an object of its own, never has the router call an address of the
router's machine or link, nor a host outside of the cluster or a Service of another namespace that the installation does not admit. The router
checks the addresses, and that the Service's name is still no other name.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import msgspec
from wisp_api import conditions
from wisp_api.route import Target
from wisp_api.sink import API_VERSION_PATTERN, Sink, SinkReference, admitted, check_host

from wisp_operator.api import SERVICES, Api, ApiError, Object, Resource
from wisp_operator.config import OperatorConfig
from wisp_operator.destinations import postings
from wisp_operator.sources import Wish
from wisp_operator.status import Aspect, mark_false

CLUSTER: Final = "cluster"
PUBLIC: Final = "public"
_FORBIDDEN: Final = 403
_ALIASES: Final = 4
"""How many Services of type ExternalName may lead from one to the next; Knative has one before its gateway."""
_LABEL: Final = re.compile("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_MIN_LABELS, _MAX_LABELS = 3, 4
"""service.namespace.svc, pod.service.namespace.svc"""


@dataclass(frozen=True)
class FoundSink:
    """A sink's target, or why there is none."""

    target: Target | None = None
    trouble: Aspect | None = None
    unsure: bool = False
    """The API could not say now: a route that there is stays, so that an API that is down stops no delivery."""


class _Kind(msgspec.Struct):
    """One of an API's resources."""

    name: str
    kind: str
    namespaced: bool


class _Kinds(msgspec.Struct):
    """An API's resources."""

    resources: list[_Kind] = []


class _Address(msgspec.Struct):
    """Where an Addressable takes events."""

    url: str | None = None


class _Status(msgspec.Struct):
    """What is read of an Addressable's status."""

    address: _Address | None = None


class _Addressable(msgspec.Struct):
    """What is read of an Addressable."""

    status: _Status | None = None


class _UnusableError(Exception):
    """Raised when a sink can't be a target; says why."""

    def __init__(self, reason: str, message: str) -> None:
        """What the Subscription's condition says."""
        self.aspect = mark_false(reason, message)
        super().__init__(message)


def sink_mistake(field: str, sink: Sink | None, allowed: list[str]) -> str:
    """What is wrong with a sink's URL, empty if nothing."""
    uri = sink.uri if sink else None
    return f"{field}.uri: {_not_admitted(uri)}" if uri and not admitted(uri, allowed) else ""


async def find_sinks(
    api: Api, config: OperatorConfig, wishes: list[Wish], functions: Iterable[Object] = ()
) -> dict[str, FoundSink]:
    """The sinks of those Subscriptions that have one, by Subscription, and of destinations, by route; what goes wrong with one stops no other."""
    wanted = {
        wish.name: (wish.live, "spec.sink", wish.spec.sink) for wish in wishes if wish.spec.sink and not wish.deleting
    }
    wanted |= {one.route: (one.owner, one.field, one.sink) for one in postings(wishes, functions)}
    return {
        name: await _find(api, config, owner["metadata"]["namespace"], field, sink)
        for name, (owner, field, sink) in wanted.items()
    }


async def _find(api: Api, config: OperatorConfig, namespace: str, field: str, sink: Sink) -> FoundSink:
    what = f"{field}.ref: {sink.ref.kind} {sink.ref.name}" if sink.ref else f"{field}.uri"
    try:
        return FoundSink(await _target(api, config, namespace, sink, what))
    except _UnusableError as error:
        return FoundSink(trouble=error.aspect)
    except ValueError as error:  # a status is whatever its kind's schema takes: no URL, or no text
        text = f"{what}: nothing can be sent to what it says of its address: {error}; the events wait"
        return FoundSink(trouble=mark_false(conditions.SINK_NOT_ADDRESSABLE, text))
    except (ApiError, OSError, TimeoutError, aiohttp.ClientError) as error:
        if isinstance(error, ApiError) and error.status == _FORBIDDEN:
            text = (
                f"{what}: the operator may not read this kind: a ClusterRole with the label "
                'duck.knative.dev/addressable: "true" has to grant get on it; the events wait'
            )
            return FoundSink(trouble=mark_false(conditions.SINK_NOT_READABLE, text))
        text = f"{what}: the Kubernetes API can't say now where it is: {error}; tried again within a minute"
        return FoundSink(trouble=mark_false(conditions.SINK_NOT_READABLE, text), unsure=True)


async def _target(api: Api, config: OperatorConfig, namespace: str, sink: Sink, what: str) -> Target:
    """Where the events go.

    Raises:
        _UnusableError: nowhere.
        ValueError: nowhere, since its status is none.
        ApiError, OSError, TimeoutError, aiohttp.ClientError: the API refuses, or can't say now.
    """
    if sink.uri:
        if not admitted(sink.uri, config.allowed_sinks):
            text = f"{what}: {_not_admitted(sink.uri)}; the events wait"
            raise _UnusableError(conditions.SINK_NOT_ALLOWED, text)
        check_host(urlsplit(sink.uri).hostname)
        return Target(url=sink.uri, reach=PUBLIC)
    assert sink.ref  # noqa: S101 - the CRD admits exactly one
    if (sink.ref.api_version, sink.ref.kind) == ("v1", "Service"):
        url = f"http://{sink.ref.name}.{namespace}.svc.{config.cluster_domain}/"
    else:
        url = _address(await _read(api, namespace, sink.ref), what)
    if service := await _find_service(api, config, namespace, url, what):
        return Target(url=url, reach=CLUSTER, service=service)
    if not admitted(url, config.allowed_sinks):
        text = (
            f"{what}: its status.address.url is no Service of this cluster, and {_not_admitted(url)}; the events wait"
        )
        raise _UnusableError(conditions.SINK_NOT_ALLOWED, text)
    check_host(urlsplit(url).hostname)
    return Target(url=url, reach=PUBLIC)


async def _read(api: Api, namespace: str, ref: SinkReference) -> Object | None:
    """The object, None where there is no such object or kind.

    Raises:
        ApiError: refused, or not now.
        ValueError: the API describes itself in a way that is none.
    """
    if not re.fullmatch(API_VERSION_PATTERN, ref.api_version):
        return None  # older than the CRD's rule: it must not choose the path that is read with the operator's rights
    path = f"/apis/{ref.api_version}" if "/" in ref.api_version else f"/api/{ref.api_version}"
    try:
        kinds = msgspec.convert(await api.read(path), _Kinds).resources
        plural = next(
            (one.name for one in kinds if one.kind == ref.kind and one.namespaced and "/" not in one.name), None
        )
        return await api.get(Resource(ref.api_version, ref.kind, plural), namespace, ref.name) if plural else None
    except ApiError as error:
        if error.unknown_kind:
            return None
        raise


def _address(item: Object | None, what: str) -> str:
    if item is None:
        text = f"{what}: there is none in this namespace; the events wait for it"
        raise _UnusableError(conditions.SINK_NOT_FOUND, text)
    status = msgspec.convert(item, _Addressable).status
    if not (status and status.address and status.address.url):
        text = f"{what}: it has no status.address.url (yet), so nothing can be sent to it; the events wait"
        raise _UnusableError(conditions.SINK_NOT_ADDRESSABLE, text)
    return status.address.url


async def _find_service(api: Api, config: OperatorConfig, namespace: str, url: str, what: str) -> str:
    """The whole name of the Service that a URL leads to, at once or by other names; empty if its host is no name of the cluster's.

    An ExternalName leads wherever the tenant says. Knative's own lead to Services: a Knative Service's to the gateway, a Channel's to its dispatcher.

    Raises:
        _UnusableError: there is none, it is another namespace's, or it leads out of the cluster.
        ValueError: it is no URL.
        ApiError, OSError, TimeoutError, aiohttp.ClientError: the API refuses, or can't say now.
    """
    parts, domain = urlsplit(url), config.cluster_domain
    first = alias = _whole(parts.hostname or "", domain)
    if parts.scheme not in {"http", "https"} or not alias:
        return ""
    if "@" in parts.netloc:
        raise ValueError("it names a user")
    for _ in range(_ALIASES):
        item = await _read_service(api, config, namespace, alias, what)
        if item["spec"].get("type") != "ExternalName":
            return alias
        outside = item["spec"].get("externalName", "").lower().rstrip(".")
        if not (alias := _whole(outside, domain)):
            break
    text = (
        f"{what}: the Service {first} is of type ExternalName and leads to {alias or outside}, which is no Service of this cluster: "
        "write its URL as uri, on a host that an administrator admits (chart value sinks.allowed); the events wait"
    )
    raise _UnusableError(conditions.SINK_NOT_ALLOWED, text)


async def _read_service(api: Api, config: OperatorConfig, namespace: str, name: str, what: str) -> Object:
    """The Service of a name; of another namespace's that is not shared nothing is told, not even whether there is one.

    Raises:
        _UnusableError: there is none, or it may not be used.
        ApiError, OSError, TimeoutError, aiohttp.ClientError: the API refuses, or can't say now.
    """
    service, owner = name.removesuffix(f".svc.{config.cluster_domain}").split(".")[-2:]
    if owner != namespace and f"{service}.{owner}" not in config.shared_services:
        text = (
            f"{what}: it leads to the Service {service}.{owner}, which is another namespace's and not among those that take events of all "
            "(chart value sinks.services); the events wait"
        )
        raise _UnusableError(conditions.SINK_NOT_ALLOWED, text)
    if (item := await api.get(SERVICES, owner, service)) is None:
        text = f"{what}: there is no Service {name} (yet); the events wait for it"
        raise _UnusableError(conditions.SINK_NOT_FOUND, text)
    return item


def _whole(name: str, domain: str) -> str:
    """A Service's name in the cluster's DNS, or that of one of its pods, with the domain; empty if it is none."""
    labels = name.removesuffix(f".{domain}").split(".")
    if not (_MIN_LABELS <= len(labels) <= _MAX_LABELS and labels[-1] == "svc" and all(map(_LABEL.fullmatch, labels))):
        return ""
    return f"{'.'.join(labels)}.{domain}"


def _not_admitted(uri: str) -> str:
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc} is not among the hosts that an administrator admits (chart value sinks.allowed)"
