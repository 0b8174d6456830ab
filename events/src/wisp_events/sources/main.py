"""`python -m wisp_events reader`: follows one connection of one namespace.

Environment: WISP_READER_NAMESPACE, WISP_READER_KIND (s3, postgres, mysql or mongodb), WISP_READER_CONNECTION (name of the Secret, mounted
at /etc/wisp/connection or WISP_READER_DIRECTORY), and those of `wisp_api.jetstream`.
"""

import asyncio
import importlib
import os
from pathlib import Path

from wisp_api import jetstream

from wisp_events import process
from wisp_events.sources.reader import CONNECTION_DIRECTORY, Reader

SOURCES = {kind: f"wisp_events.sources.{kind}" for kind in ("mongodb", "mysql", "postgres", "s3")}
"""Modules with a coroutine function `run(reader, js)`; only the one in use is imported."""


async def main(stop: asyncio.Event) -> None:
    """Follow the source until `stop`."""
    namespace, kind, connection = (os.environ[f"WISP_READER_{name}"] for name in ("NAMESPACE", "KIND", "CONNECTION"))
    directory = Path(os.environ.get("WISP_READER_DIRECTORY", CONNECTION_DIRECTORY))
    reader: Reader | None = None

    def missing() -> str:
        return reader.missing() if reader else "NATS is away"

    health = await process.serve_health(missing, int(os.environ.get("WISP_HEALTH_PORT", process.HEALTH_PORT)))
    closed = asyncio.Event()

    async def note_closed() -> None:
        closed.set()

    stopped, given_up = asyncio.create_task(stop.wait()), asyncio.create_task(closed.wait())
    name = f"reader {namespace}/{kind}/{connection}"
    connecting = asyncio.create_task(jetstream.connect(name, closed_cb=note_closed))
    await asyncio.wait([stopped, connecting], return_when=asyncio.FIRST_COMPLETED)
    if connecting.done():
        client = connecting.result()
        reader = Reader(client, namespace, kind, connection, directory)
        source = importlib.import_module(SOURCES[kind])
        working = [asyncio.create_task(reader.follow()), asyncio.create_task(source.run(reader, client.jetstream()))]
        await asyncio.wait([stopped, given_up, *working], return_when=asyncio.FIRST_COMPLETED)
        for task in working:
            if task.done():
                task.result()  # neither ends by itself; an error here is a bug, and the container's restart its cure
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        if closed.is_set():  # the server revoked or refused the credentials: a new process reads them anew
            raise SystemExit("NATS closed the connection for good")
        await client.close()
    for task in (connecting, given_up):
        task.cancel()
    health.close()
