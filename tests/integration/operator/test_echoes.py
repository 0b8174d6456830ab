"""Events of the operator's own writes are left out, those of everyone else never: not even one that hides behind an own write."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from fixtures.control_plane import SERVING, WISP
from fixtures.kube import Kube, kube
from fixtures.objects import make_function
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import load_kube_config
from wisp_operator.api import FUNCTIONS, KNATIVE_SERVICES, Api, Object
from wisp_operator.apply import apply
from wisp_operator.status import write_status

MERGE = "application/merge-patch+json"
Act = Callable[[Api], Awaitable[Object]]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kube]:
    """A Kubernetes API in which no operator acts."""
    with kube(tmp_path_factory.mktemp("kube")) as running:
        yield running


@pytest.fixture
def run(cluster: Kube) -> Callable[[Act], Object]:
    """Runs a coroutine with a connection of the operator's."""

    async def connected(act: Act) -> Object:
        configuration = Configuration()
        await load_kube_config(str(cluster.kubeconfig("operator")), client_configuration=configuration)  # type: ignore[no-untyped-call]
        api = Api(ApiClient(configuration))
        try:
            return await act(api)
        finally:
            await api.close()

    return lambda act: asyncio.run(connected(act))


def edit(cluster: Kube, path: str, patch: dict[str, Any]) -> None:
    """Change an object as somebody else."""
    status, answer = cluster.request("PATCH", path, patch, MERGE)
    assert status == 200, answer


def service(namespace: str) -> Object:
    """A small Knative Service."""
    template = {"spec": {"containers": [{"name": "function", "image": "example"}]}}
    meta = {"name": "hello", "namespace": namespace, "labels": {"mine": "yes"}}
    return {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": meta, "spec": {"template": template}}


def test_own_write_is_known_until_someone_writes(cluster: Kube, namespace: str, run: Callable[[Act], Object]) -> None:
    """The version that a write returned is the own one, the next version and a new object of the same name are not."""
    path = f"{SERVING}/namespaces/{namespace}/services/hello"

    async def act(api: Api) -> Object:
        made = await apply(api, KNATIVE_SERVICES, service(namespace), None)
        assert api.wrote(made)
        edit(cluster, path, {"metadata": {"labels": {"mine": "no"}}})
        assert not api.wrote(cluster.get(path))
        live = await api.get(KNATIVE_SERVICES, namespace, "hello")
        assert api.wrote(await apply(api, KNATIVE_SERVICES, service(namespace), live)), "put right"
        api.forget(cluster.get(path))
        assert not api.wrote(cluster.get(path))
        return made

    run(act)


def test_knatives_status_behind_an_own_write(cluster: Kube, namespace: str, run: Callable[[Act], Object]) -> None:
    """A Service whose status came between look and write is looked at again."""
    path = f"{SERVING}/namespaces/{namespace}/services/hello"

    async def act(api: Api) -> Object:
        live = await apply(api, KNATIVE_SERVICES, service(namespace), None)
        edit(cluster, f"{path}/status", {"status": {"observedGeneration": 1}})
        wanted = service(namespace)
        wanted["metadata"]["labels"]["mine"] = "still"
        assert not api.wrote(await apply(api, KNATIVE_SERVICES, wanted, live))
        return live

    run(act)


@pytest.mark.parametrize("patch", [{"spec": {"timeoutSeconds": 7}}, None], ids=["edited", "deleted"])
def test_edit_behind_an_own_status(
    cluster: Kube, namespace: str, run: Callable[[Act], Object], patch: dict[str, Any] | None
) -> None:
    """A Function that was edited or deleted between look and status write is looked at again, an untouched one is not."""
    path = f"{WISP}/namespaces/{namespace}/functions/hello"
    cluster.apply(
        make_function(namespace=namespace)
        | {"metadata": {"name": "hello", "namespace": namespace, "finalizers": ["example.com/kept"]}}
    )

    async def act(api: Api) -> Object:
        live = cluster.get(path)
        await write_status(api, FUNCTIONS, live, {"conditions": [], "url": "http://first"}, datetime.now(UTC))
        assert api.wrote(cluster.get(path))
        live = cluster.get(path)
        if patch:
            edit(cluster, path, patch)
        else:
            cluster.request("DELETE", path)
        await write_status(api, FUNCTIONS, live, {"conditions": [], "url": "http://second"}, datetime.now(UTC))
        assert not api.wrote(cluster.get(path))
        return {}

    run(act)
    edit(cluster, path, {"metadata": {"finalizers": None}})
