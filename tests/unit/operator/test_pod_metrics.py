"""What a pod of a tenant answers to the operator's question costs the operator little, and leads it nowhere."""

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator
from unittest import mock

import pytest
from aiohttp import web
from wisp_operator import pod_metrics
from wisp_operator.rollout import Counts

POD = {"metadata": {}, "status": {"phase": "Running", "podIP": "127.0.0.1"}}
FIGURES = 'wisp_function_invocations_total{status="success"} 8\nwisp_function_invocations_total{status="error"} 2\n'


@contextlib.asynccontextmanager
async def pod(monkeypatch: pytest.MonkeyPatch, *routes: web.RouteDef) -> AsyncIterator[None]:
    """A pod that serves these."""
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    monkeypatch.setattr(pod_metrics, "PORT", runner.addresses[0][1])
    try:
        yield
    finally:
        await runner.cleanup()


async def test_figures_are_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each pod that runs."""

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(text=FIGURES)

    async with pod(monkeypatch, web.get("/metrics", metrics)):
        assert await pod_metrics.read_counts([POD, POD]) == Counts(20, 4)


async def test_an_answer_that_leads_elsewhere_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator reaches what a tenant does not."""
    led = mock.AsyncMock(return_value=web.Response(text=FIGURES))

    async def metrics(_: web.Request) -> web.Response:
        raise web.HTTPFound("/elsewhere")

    async with pod(monkeypatch, web.get("/metrics", metrics), web.get("/elsewhere", led)):
        assert (await pod_metrics.read_counts([POD])).unread == "pod 127.0.0.1 answers 302"
    assert not led.called


async def test_an_answer_without_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """After what the runtime's own never has."""
    sent = 0

    async def metrics(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        answer = web.StreamResponse()
        await answer.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await answer.write(bytes(65536))
                sent += 65536
        return answer

    async with pod(monkeypatch, web.get("/metrics", metrics)):
        counts = await asyncio.wait_for(pod_metrics.read_counts([POD]), 60)
    assert "more than" in counts.unread
    assert sent < 64 * 1024 * 1024


async def test_nothing_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few KiB of gzip, which were not asked for, stay what they are."""

    async def metrics(_: web.Request) -> web.Response:
        packed = gzip.compress(b"# nothing\n" * 1_000_000 + FIGURES.encode())
        return web.Response(body=packed, headers={"Content-Encoding": "gzip"})

    async with pod(monkeypatch, web.get("/metrics", metrics)):
        assert await pod_metrics.read_counts([POD]) == Counts()
