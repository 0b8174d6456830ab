"""`python -m wisp_events ingest`: takes bucket notifications and events on port 8080, and writes what schedules tick.

Environment: WISP_INGEST_PORT (8080), WISP_INGEST_TOKENS (/etc/wisp/s3, one file a server), WISP_NAMESPACE (wisp-system; gets
the dead letters that belong to nobody), WISP_STORE_TICKETS (what the code store's tickets are made of), WISP_ACTIVATOR (host and port of
Knative's), and those of `wisp_api.jetstream`.
"""

import asyncio
import os
from pathlib import Path

from wisp_api import jetstream

from wisp_events import process
from wisp_events.ingest.app import ACTIVATOR, App
from wisp_events.schedule.scheduler import Scheduler
from wisp_events.web import Server

KEEP_SECONDS = 75
"""Longer than MinIO keeps a connection, so that neither closes what the other writes to."""


async def main(stop: asyncio.Event) -> None:
    """Serve until `stop`, then finish what is under way."""
    tokens, tickets = os.environ.get("WISP_INGEST_TOKENS", "/etc/wisp/s3"), os.environ.get("WISP_STORE_TICKETS", "")
    app = App(Path(tokens), tickets, os.environ.get("WISP_ACTIVATOR", ACTIVATOR))
    client = None

    def missing() -> str:
        return "" if client and client.is_connected else "NATS is away"

    health = await process.serve_health(missing, int(os.environ.get("WISP_HEALTH_PORT", process.HEALTH_PORT)))
    server = Server(app, int(os.environ.get("WISP_INGEST_PORT", "8080")), keep_seconds=KEEP_SECONDS)
    serving = asyncio.create_task(server.serve())
    closed = asyncio.Event()

    async def note_closed() -> None:
        closed.set()

    stopped, given_up = asyncio.create_task(stop.wait()), asyncio.create_task(closed.wait())
    connecting = asyncio.create_task(jetstream.connect("ingest", closed_cb=note_closed))
    await asyncio.wait([serving, stopped, connecting], return_when=asyncio.FIRST_COMPLETED)
    ticking = None
    if connecting.done():
        client = connecting.result()
        app.connected(client, os.environ.get("WISP_NAMESPACE", "wisp-system"))
        ticking = asyncio.create_task(Scheduler(client.jetstream()).run())
        await asyncio.wait([serving, stopped, given_up, ticking], return_when=asyncio.FIRST_COMPLETED)
    if ticking and ticking.done():
        ticking.result()  # it never returns: a defect ends the process, and a new one goes on
    server.should_exit = True
    await serving
    if closed.is_set():  # the server revoked or refused the credentials: a new process reads them anew
        raise SystemExit("NATS closed the connection for good")
    for task in (connecting, given_up, *([ticking] if ticking else [])):
        task.cancel()
    if client:
        await client.close()
    health.close()
