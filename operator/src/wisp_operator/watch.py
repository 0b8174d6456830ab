"""What the operator watches: each event only queues a key, the reconcile functions find out the rest.

kopf watches Wisp's own kinds and stores nothing on the objects: low-level event handlers need neither its annotations nor its finalizer. Of
made objects, of which there are several for each Function, the metadata is enough: their labels lead to what they were made for, so a
deleted or edited one is put right at once. Invariant: an event is left out only
where the object is the very version that this process's own write returned (uid and resourceVersion), and nobody had changed what a
reconciliation goes by (a Function's spec, a Service's status) between its look and its write. A watch that begins anew
tells of the last version alone, so an edit can hide behind such an echo: this is why the write's answer is compared with what was
looked at. It could fail where etcd is restored and numbers versions anew; the resync then finds what was missed.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Any, Final

import kopf
from wisp_api import names
from wisp_api.quota import FunctionQuotaSpec

from wisp_operator.api import CONFIG_MAPS, DEPLOYMENTS, JOBS, KNATIVE_SERVICES, OBJECTS, Api
from wisp_operator.context import Context
from wisp_operator.keys import FunctionKey
from wisp_operator.metadata import Partial, follow
from wisp_operator.reader import COMPONENT
from wisp_operator.workqueue import WorkQueue

_UNLIMITED: Final = FunctionQuotaSpec()
_QUOTA_SECONDS: Final = 1.0
"""How long changes of Functions are gathered before what is used of the quota is counted."""
_OURS: Final = "app.kubernetes.io/part-of=wisp"
_IDLE_SECONDS: Final = 0.1
"""How long kopf keeps an object's task, and with it the object, after its last event."""


def make_registry(
    context: Context, functions: WorkQueue[FunctionKey], namespaces: WorkQueue[str], quotas: WorkQueue[str]
) -> kopf.OperatorRegistry:
    """The handlers for kopf."""
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(kopf.login_via_client)
    kopf.on.startup(registry=registry)(configure)

    @kopf.on.event(names.GROUP, names.VERSION, "functions", registry=registry)
    async def function_changed(
        namespace: str | None, name: str, spec: Mapping[str, Any], event: Mapping[str, Any], **_: Any
    ) -> None:
        assert namespace  # noqa: S101 - all kinds here are namespaced
        if "async" in spec:
            context.namespaces.add(namespace)
        if not _ours(context.api, event["type"], event["object"]):
            functions.add(FunctionKey(namespace, name))
        if namespace in context.namespaces:
            namespaces.add(namespace)
        _count(context, quotas, namespace)

    @kopf.on.event(names.GROUP, names.VERSION, "subscriptions", registry=registry)
    async def subscription_changed(namespace: str | None, **_: Any) -> None:
        assert namespace  # noqa: S101 - as above
        context.namespaces.add(namespace)
        namespaces.add(namespace)

    _watch_quotas(registry, quotas)
    return registry


async def follow_made(api: Api, functions: WorkQueue[FunctionKey], namespaces: WorkQueue[str]) -> None:
    """Watch what was made, for ever."""

    def made_for_function(kind: str, item: Partial) -> None:
        meta = item["metadata"]
        if not _ours(api, kind, item) and (name := meta.get("labels", {}).get(names.FUNCTION_LABEL)):
            functions.add(FunctionKey(meta["namespace"], name))

    def reader(_: str, item: Partial) -> None:
        namespaces.add(item["metadata"]["namespace"])

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(follow(api, KNATIVE_SERVICES, _OURS, made_for_function))
        tasks.create_task(follow(api, CONFIG_MAPS, f"{_OURS},{names.FUNCTION_LABEL}", made_for_function))
        tasks.create_task(follow(api, JOBS, f"{_OURS},{names.FUNCTION_LABEL}", made_for_function))
        tasks.create_task(follow(api, DEPLOYMENTS, f"{_OURS},{names.COMPONENT_LABEL}={COMPONENT}", reader))


def _count(context: Context, quotas: WorkQueue[str], namespace: str) -> None:
    """Have what a namespace uses counted, where something limits it."""
    if context.quota(namespace) != _UNLIMITED:
        quotas.add(namespace, _QUOTA_SECONDS)


def _watch_quotas(registry: kopf.OperatorRegistry, quotas: WorkQueue[str]) -> None:
    @kopf.on.event(names.GROUP, names.VERSION, "functionquotas", registry=registry)
    async def quota_changed(namespace: str | None, **_: Any) -> None:
        assert namespace  # noqa: S101 - as above
        quotas.add(namespace)


def _ours(api: Api, kind: str, item: Mapping[str, Any]) -> bool:
    """Whether an event is the echo of this process's own write."""
    if kind == "DELETED":
        api.forget(item)
        return False
    return api.wrote(item)


def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    """Watch only what is ours, write nothing, keep quiet."""
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.execution.max_workers = 1
    settings.persistence.diffbase_storage = _NothingKept()
    settings.queueing.idle_timeout = _IDLE_SECONDS
    settings.watching.chunk_size = OBJECTS
    logging.getLogger("kopf").setLevel(logging.WARNING)


class _NothingKept(kopf.DiffBaseStorage):
    """Stands for what kopf remembers of objects' last state, which costs it a deep copy of each and tells nothing here."""

    def build(self, *, body: kopf.Body, extra_fields: Iterable[kopf.FieldSpec] | None = None) -> kopf.BodyEssence:  # noqa: ARG002 - kopf names them
        """Nothing of the object."""
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:  # noqa: ARG002 - as above
        """Nothing is known."""
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Nothing is kept."""
