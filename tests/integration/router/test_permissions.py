"""The router with the very credentials that the platform gives it."""

import asyncio
from pathlib import Path

from fixtures.function_server import MARKED, ok
from fixtures.router_world import NAMESPACE, STREAM, event, world
from wisp_api import names
from wisp_api.route import Outlet
from wisp_operator import nats_auth


async def test_the_platforms_credentials_suffice(tmp_path: Path) -> None:
    """With the log user minted for it a router claims, delivers, dead-letters, posts records, reports, purges, and hands over."""
    seeds = {name: nats_auth.new_seed(prefix) for name, prefix in nats_auth.SEEDS.items()}
    users = {"operator": nats_auth.operator_user(), "router": nats_auth.router_user()}
    for name, user in users.items():
        (tmp_path / name).write_text(nats_auth.make_credentials(seeds[nats_auth.ACCOUNT], user))
    config = nats_auth.make_server_config(seeds)
    async with world(tmp_path, config=config, credentials=tmp_path / "operator") as w:
        w.env = {"WISP_NATS_CREDS": str(tmp_path / "router"), "WISP_NATS_INBOX": users["router"].inbox}
        router = w.router()
        w.function.answer = lambda r: ok(r) if r.id == "2" else (400, MARKED, b"")
        stream = names.stream(NAMESPACE, "destination", "sub_u_failure")
        subjects = [names.stream_subjects(NAMESPACE, "destination", "sub_u_failure")]
        await w.client.jetstream(timeout=60).add_stream(name=stream, subjects=subjects, allow_direct=True)
        await w.subscribe("failure_subscription_sub", stream=stream, subjects=subjects, records=True)
        await w.subscribe(on_failure=Outlet(kind="destination", name="failure_subscription_sub", stream=stream))
        await w.active()
        await w.publish(event(1), event(2))
        await w.delivered(1)
        assert {letter.subscription for letter in await w.dead_letters(2)} == {"sub", None}
        js = w.client.jetstream(timeout=60)
        async with asyncio.timeout(60):
            state = (await js.stream_info(STREAM)).state
            while state.messages:
                await asyncio.sleep(0.1)
                state = (await js.stream_info(STREAM)).state
        await router.stop()
        log = (tmp_path / "router-0.log").read_text().lower()
        assert "permission" not in log, log
