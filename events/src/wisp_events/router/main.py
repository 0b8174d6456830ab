"""The router's process.

Environment: see `wisp_api.jetstream`; WISP_POD_NAME, this replica's name; WISP_LOG_RETENTION_SECONDS, how long delivered
records stay for replay (default 3600); WISP_HEALTH_PORT (default 9090); WISP_TRACES_ENDPOINT, an OTLP collector's URL (default
none), WISP_TRACES_RATIO, the share of traces begun here that are told (default 1), and WISP_TRACES_HEADERS, a folder with a file
for each header that the collector asks for (default none).
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

import nats.errors
from wisp_api import jetstream

from wisp_events.process import HEALTH_PORT, serve_health
from wisp_events.router.client import Client
from wisp_events.router.export import Exporter
from wisp_events.router.replica import Replica
from wisp_events.router.tracer import Tracer

logger = logging.getLogger(__name__)


async def main(stop: asyncio.Event) -> None:
    """Route events until `stop` is set."""
    me = os.environ["WISP_POD_NAME"]
    replica: Replica | None = None

    async def reconnected() -> None:
        if replica:
            replica.reconnected()

    async def log_error(error: Exception) -> None:
        logger.warning("NATS: %s", str(error) or type(error).__name__)

    def missing() -> str:
        return replica.trouble if replica else "NATS was not reached yet"

    health = await serve_health(missing, int(os.environ.get("WISP_HEALTH_PORT", HEALTH_PORT)))
    connecting = asyncio.create_task(jetstream.connect(f"router {me}", reconnected_cb=reconnected, error_cb=log_error))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([connecting, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not connecting.done():
        connecting.cancel()
        return
    client, http = connecting.result(), Client()
    retention = float(os.environ.get("WISP_LOG_RETENTION_SECONDS", "3600"))
    try:
        async with _tracer(http) as tracer:
            replica = Replica(client, http, me, retention, tracer)
            await replica.run(stop)
    finally:
        await http.close()
        with contextlib.suppress(nats.errors.Error):
            await client.close()
        health.close()


@contextlib.asynccontextmanager
async def _tracer(http: Client) -> AsyncIterator[Tracer]:
    """What tells traces, while it does."""
    endpoint, headers = os.environ.get("WISP_TRACES_ENDPOINT", ""), os.environ.get("WISP_TRACES_HEADERS", "")
    if not endpoint:
        yield Tracer()
        return
    exporter = Exporter(http, endpoint, Path(headers) if headers else None)
    running = asyncio.create_task(exporter.run())
    try:
        yield Tracer(exporter, float(os.environ.get("WISP_TRACES_RATIO", "1")))
    finally:
        await exporter.close(running)
