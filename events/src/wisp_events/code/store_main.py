"""`python -m wisp_events store`: keeps code archives, on port 8080.

Environment: WISP_STORE_KEY (capabilities are made of it), WISP_STORE_TICKETS (tickets are; absent: there are none),
WISP_STORE_ENDPOINT, WISP_STORE_BUCKET, WISP_STORE_ACCESS_KEY, WISP_STORE_SECRET_KEY, WISP_STORE_REGION (us-east-1), WISP_STORE_PORT (8080),
WISP_STORE_NAMESPACE_MAX_BYTES (what a namespace may keep; 0, the default: any).
"""

import asyncio
import logging
import os

from wisp_api.signing import Access

from wisp_events import process
from wisp_events.code.bucket import FAILURES, Bucket
from wisp_events.code.store import Store
from wisp_events.web import Server

KEEP_SECONDS = 30
RETRY_SECONDS = 2.0
logger = logging.getLogger(__name__)


async def main(stop: asyncio.Event) -> None:
    """Serve until `stop`; ready once the bucket is there."""
    env = os.environ
    access = Access(
        env["WISP_STORE_ENDPOINT"].rstrip("/"),
        env["WISP_STORE_ACCESS_KEY"],
        env["WISP_STORE_SECRET_KEY"],
        env.get("WISP_STORE_REGION") or "us-east-1",
    )
    bucket = Bucket(access, env["WISP_STORE_BUCKET"])
    making = asyncio.create_task(_make(bucket))

    def missing() -> str:
        return "" if making.done() else f"the bucket {bucket.name} at {access.endpoint} is not there yet"

    health = await process.serve_health(missing, int(env.get("WISP_HEALTH_PORT", process.HEALTH_PORT)))
    most = int(env.get("WISP_STORE_NAMESPACE_MAX_BYTES") or 0)
    store = Store(bucket, env["WISP_STORE_KEY"], env.get("WISP_STORE_TICKETS", ""), most)
    server = Server(store, int(env.get("WISP_STORE_PORT", "8080")), keep_seconds=KEEP_SECONDS)
    serving, stopped = asyncio.create_task(server.serve()), asyncio.create_task(stop.wait())
    await asyncio.wait([serving, stopped], return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    await serving
    for task in (making, stopped):
        task.cancel()
    health.close()


async def _make(bucket: Bucket) -> None:
    """Make the bucket, however long its server takes to come up."""
    while True:
        try:
            return await asyncio.to_thread(bucket.create)
        except FAILURES as error:
            logger.warning("the bucket %s can't be made yet: %s", bucket.name, error)
        await asyncio.sleep(RETRY_SECONDS)
