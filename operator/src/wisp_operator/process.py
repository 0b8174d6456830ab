"""The health port of the operator, with metrics."""

from collections.abc import Callable
from typing import Final

import prometheus_client
from aiohttp import web

HEALTH_PORT: Final = 9090


async def serve_health(ready: Callable[[], str], port: int) -> web.AppRunner:
    """Serve /healthz, /readyz and /metrics; `ready` returns what is missing, in a sentence, or nothing."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        missing = ready()
        return web.Response(status=503 if missing else 200, text=f"{missing or 'ok'}\n")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(
            body=prometheus_client.generate_latest(), headers={"Content-Type": prometheus_client.CONTENT_TYPE_LATEST}
        )

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, None, port).start()
    return runner
