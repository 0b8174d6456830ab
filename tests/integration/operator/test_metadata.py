"""Objects are told of by their metadata: each that is there, however many pages they take, and each change after it."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from fixtures import tasks
from fixtures.kube import Kube
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import load_kube_config
from wisp_operator import metadata
from wisp_operator.api import CONFIG_MAPS, JOBS, Api
from wisp_operator.metadata import Partial, follow, pages

DEADLINE = 60


def connected(cluster: Kube, act: Callable[[Api], Awaitable[None]]) -> None:
    """Run a coroutine with a connection of the operator's."""

    async def run() -> None:
        configuration = Configuration()
        await load_kube_config(str(cluster.kubeconfig("operator")), client_configuration=configuration)  # type: ignore[no-untyped-call]
        api = Api(ApiClient(configuration))
        try:
            await asyncio.wait_for(act(api), DEADLINE)
        finally:
            await api.close()

    asyncio.run(run())


def make(cluster: Kube, namespace: str, name: str) -> None:
    """A ConfigMap of this test's own."""
    meta = {"name": name, "namespace": namespace, "labels": {"example.com/of": namespace}}
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"key": "value"}})


def test_pages_and_changes(cluster: Kube, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five objects on three pages are told of once each, then one that is made and one that is deleted; of their content nothing."""
    monkeypatch.setattr(metadata, "PAGE", 2)
    for name in "abcde":
        make(cluster, namespace, name)
    told: asyncio.Queue[tuple[str, Partial]] = asyncio.Queue()

    async def next_told() -> tuple[str, str]:
        kind, item = await told.get()
        assert item.keys() == {"metadata"}
        return kind, item["metadata"]["name"]

    async def act(api: Api) -> None:
        tell = lambda kind, item: told.put_nowait((kind, item))  # noqa: E731 - a name for one line
        following = asyncio.ensure_future(follow(api, CONFIG_MAPS, f"example.com/of={namespace}", tell))
        assert [await next_told() for _ in "abcde"] == [("ADDED", name) for name in "abcde"]
        await asyncio.to_thread(make, cluster, namespace, "f")
        assert await next_told() == ("ADDED", "f")
        await asyncio.to_thread(cluster.request, "DELETE", f"/api/v1/namespaces/{namespace}/configmaps/a")
        assert await next_told() == ("DELETED", "a")
        await tasks.end(following)

    connected(cluster, act)


def test_kind_without_objects(cluster: Kube, namespace: str) -> None:
    """A kind without objects has one page with nothing on it, and a version to watch from."""

    async def act(api: Api) -> None:
        found = [page async for page in pages(api, JOBS, f"example.com/of={namespace}")]
        assert [(bool(version), items) for version, items in found] == [(True, [])]

    connected(cluster, act)
