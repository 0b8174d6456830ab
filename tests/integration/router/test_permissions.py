"""The router with the very credentials that the platform gives it."""

import asyncio
from pathlib import Path

from fixtures.function_server import MARKED, ok
from fixtures.router_world import STREAM, event, world
from wisp_api.route import Retry
from wisp_operator import nats_auth


async def test_the_platforms_credentials_suffice(tmp_path: Path) -> None:
    """With the log user minted for it a router claims, delivers, dead-letters, reports, purges, and hands over."""
    seeds = {name: nats_auth.new_seed(prefix) for name, prefix in nats_auth.SEEDS.items()}
    users = {"operator": nats_auth.operator_user(), "router": nats_auth.router_user()}
    for name, user in users.items():
        (tmp_path / name).write_text(nats_auth.make_credentials(seeds[nats_auth.ACCOUNT], user))
    config = nats_auth.make_server_config(seeds)
    async with world(tmp_path, config=config, credentials=tmp_path / "operator") as w:
        w.env = {"WISP_NATS_CREDS": str(tmp_path / "router"), "WISP_NATS_INBOX": users["router"].inbox}
        router = w.router()
        w.function.answer = lambda r: (500, MARKED, b"") if r.id == "1" else ok(r)
        await w.subscribe(retry=Retry(max_attempts=2, initial_seconds=0.05))
        await w.active()
        await w.publish(event(1), event(2))
        await w.delivered(1)
        await w.dead_letters(1)
        js = w.client.jetstream(timeout=60)
        async with asyncio.timeout(60):
            state = (await js.stream_info(STREAM)).state
            while state.messages:
                await asyncio.sleep(0.1)
                state = (await js.stream_info(STREAM)).state
        await router.stop()
        log = (tmp_path / "router-0.log").read_text().lower()
        assert "permission" not in log, log
