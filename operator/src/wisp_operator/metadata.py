"""What is called how, without what stands in it: all objects of a kind, listed in pages and then watched.

An object costs a few hundred bytes while it is told of, and nothing afterwards. Invariant: `follow` tells of each object that is there and of
each change that follows, the last state of it at least; what went while no version led from one watch to the next is not told of.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final, NotRequired, TypedDict

import aiohttp
import msgspec

from wisp_operator.api import OBJECTS, Api, ApiError, Resource
from wisp_operator.decoding import decode

_PARTIAL: Final = "application/json;as=PartialObjectMetadata{};g=meta.k8s.io;v=v1"
PAGE: Final = 100
"""Objects whose metadata is asked for at once: annotations may have 256 KiB."""
_WATCH_SECONDS: Final = 300
_PAUSE_SECONDS: Final = 0.1
_RETRY_SECONDS: Final = 1.0
_ABSENT_SECONDS: Final = 10.0
"""Until a kind is looked for again that the cluster does not have."""
_SERVER_ERROR: Final = 500
_BUSY: Final = frozenset({429, 503})
"""Answers of an API server that has too much to do, or begins: the version is as good as before."""
_log = logging.getLogger(__name__)


class Metadata(TypedDict, total=False):
    """What is kept of it."""

    name: str
    namespace: str
    uid: str
    resourceVersion: str
    labels: dict[str, str]


class Partial(TypedDict):
    """An object, as far as it is asked for."""

    metadata: Metadata
    spec: NotRequired[dict[str, Any]]


class _ListMetadata(msgspec.Struct, rename="camel"):
    resource_version: str
    more: str = msgspec.field(name="continue", default="")


class _Page(msgspec.Struct):
    metadata: _ListMetadata
    items: list[Partial] | None
    """None where there is none, which the last page may be like."""


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


async def pages(
    api: Api, resource: Resource, labels: str = "", *, specs: bool = False
) -> AsyncGenerator[tuple[str, list[Partial]]]:
    """The cluster's objects, some hundred at a time, as (version of them all, objects).

    Raises:
        ApiError: refused; 410 where it took so long that the version has passed.
        OSError, TimeoutError, aiohttp.ClientError: the connection broke.
    """
    query = {"labelSelector": labels, "limit": str(OBJECTS if specs else PAGE)}
    accept = "application/json" if specs else _PARTIAL.format("List")
    while True:
        page = decode(await api.fetch(resource.path(None), query, accept=accept), _Page)
        yield page.metadata.resource_version, page.items or []
        if not page.metadata.more:
            return
        query["continue"] = page.metadata.more


async def watch(
    api: Api, resource: Resource, labels: str, *, fields: str = "", since: str = ""
) -> AsyncGenerator[tuple[str, Partial]]:
    """The cluster's objects as they are, or what changed after the version `since`, then each that changes, as (type of the event, object), for some minutes.

    Raises:
        ApiError: refused; 410 where the version has passed.
        OSError, TimeoutError, aiohttp.ClientError: the connection broke.
    """
    query = {"watch": "1", "timeoutSeconds": str(_WATCH_SECONDS), "labelSelector": labels, "fieldSelector": fields}
    if since:
        query |= {"resourceVersion": since, "allowWatchBookmarks": "true"}
    stream = api.stream(resource.path(None), query, _PARTIAL.format(""), _WATCH_SECONDS + 30)
    async with contextlib.aclosing(stream) as lines:
        async for line in lines:
            event = decode(line, _Event)
            if event.type == "ERROR":
                raise ApiError(msgspec.json.decode(event.object).get("code", _SERVER_ERROR), bytes(event.object))
            yield event.type, decode(event.object, Partial)


async def follow(api: Api, resource: Resource, labels: str, tell: Callable[[str, Partial], None]) -> None:
    """Tell of all objects, as ADDED, and of each change, for ever."""
    since = ""
    while True:
        wait = _PAUSE_SECONDS
        try:
            since = since or await _list(api, resource, labels, tell)
            async with contextlib.aclosing(watch(api, resource, labels, since=since)) as events:
                async for kind, item in events:
                    since = item["metadata"]["resourceVersion"]
                    if kind != "BOOKMARK":
                        tell(kind, item)
        except ApiError as error:
            since = since if error.status in _BUSY else ""
            wait = _ABSENT_SECONDS if error.unknown_kind else _RETRY_SECONDS
            if not error.unknown_kind:  # a Function's condition tells that Knative is not there
                _log.info("the watch of %s ended: %s; begun anew", resource.plural, error)
        except msgspec.DecodeError as error:
            since, wait = "", _RETRY_SECONDS
            _log.info("the watch of %s told what can't be read: %s; begun anew", resource.plural, error)
        except (OSError, TimeoutError, aiohttp.ClientError) as error:
            wait = _RETRY_SECONDS
            _log.info("the watch of %s broke off: %s", resource.plural, error or type(error).__name__)
        await asyncio.sleep(wait)


async def _list(api: Api, resource: Resource, labels: str, tell: Callable[[str, Partial], None]) -> str:
    """Tell of all objects; the version from which to watch."""
    version = ""
    async with contextlib.aclosing(pages(api, resource, labels)) as found:
        async for version, items in found:  # noqa: B007 - returned
            for item in items:
                tell("ADDED", item)
    return version
