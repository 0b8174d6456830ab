"""What the operator lists is asked for in pages that it can hold, whatever tenants put into their objects."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from aiohttp import web
from fixtures.objects import make_function
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from wisp_operator.api import FUNCTIONS, OBJECTS, Api
from wisp_operator.metadata import pages

COUNT = 130


class Server:
    """An API that serves COUNT large Functions in pages, as it is asked."""

    def __init__(self) -> None:
        """Nobody has asked."""
        self.most = 0

    async def answer(self, request: web.Request) -> web.Response:
        """One page."""
        begin, size = int(request.query.get("continue", 0)), int(request.query.get("limit", COUNT))
        end = min(begin + size, COUNT)
        more = {"continue": str(end)} if end < COUNT else {}
        item = make_function("large", code={"files": {"app.py": "#" * 1000}}, env=[{"name": "A", "value": "a" * 1000}])
        item["metadata"] |= {"annotations": {"a": "b"}, "managedFields": [{"manager": "kubectl"}]}
        self.most = max(self.most, end - begin)
        made: dict[str, Any] = {"metadata": {"resourceVersion": "7", **more}, "items": [item] * (end - begin)}
        return web.Response(body=msgspec.json.encode(made), content_type="application/json")


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[tuple[Server, Api]]:
    """Such a server, and a connection to it."""
    server, app = Server(), web.Application()
    app.add_routes([web.get("/{path:.*}", server.answer)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    configuration = Configuration()
    configuration.host = f"http://127.0.0.1:{runner.addresses[0][1]}"
    api = Api(ApiClient(configuration))
    try:
        yield server, api
    finally:
        await api.close()
        await runner.cleanup()


async def test_a_namespace_is_listed_in_pages_without_what_is_heavy() -> None:
    """All Functions, with their specs but no code, no variables, and nobody's annotations."""
    async with serving() as (server, api):
        found = await api.list(FUNCTIONS, "media")
    assert (len(found), server.most) == (COUNT, OBJECTS)
    assert found[0]["kind"] == "Function"
    assert found[0]["spec"]["handler"]
    assert len(msgspec.json.encode(found[0])) < 1000
    assert not found[0]["metadata"].keys() & {"annotations", "managedFields"}


async def test_the_cluster_is_listed_in_pages_that_can_be_held() -> None:
    """Fifty of the largest objects that the API takes are a fraction of the operator's memory."""
    async with serving() as (server, api):
        assert sum([len(items) async for _, items in pages(api, FUNCTIONS, specs=True)]) == COUNT
        assert server.most == OBJECTS
        assert sum([len(items) async for _, items in pages(api, FUNCTIONS)]) == COUNT
        assert server.most <= 100
