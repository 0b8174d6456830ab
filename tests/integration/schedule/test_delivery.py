"""From a Subscription with a schedule to the function: what the operator compiles, by ingest and router with the platform's own credentials."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import msgspec
from fixtures.dataplane import DataPlane, Part
from fixtures.objects import make_subscription, schedule
from fixtures.process import free_port
from fixtures.router_world import World, world
from nats.js.api import KeyValueConfig
from wisp_api import names
from wisp_api.route import Target
from wisp_operator import nats_auth
from wisp_operator.outlets import Outlets
from wisp_operator.route import make_route
from wisp_operator.schedule import make_schedule
from wisp_operator.sources import decode, stream_subjects


async def test_ticks_reach_the_function(tmp_path: Path) -> None:
    """Every second's tick reaches the function once and in order, with its data; nobody needed a right that it has not."""
    seeds = {name: nats_auth.new_seed(prefix) for name, prefix in nats_auth.SEEDS.items()}
    users = {
        "operator": nats_auth.operator_user(),
        "router": nats_auth.router_user(),
        "ingest": nats_auth.ingest_user(),
    }
    for name, user in users.items():
        (tmp_path / name).write_text(nats_auth.make_credentials(seeds[nats_auth.ACCOUNT], user))
    config = nats_auth.make_server_config(seeds)
    async with world(tmp_path, config=config, credentials=tmp_path / "operator") as w:
        await subscribe(w)
        w.env = {"WISP_NATS_CREDS": str(tmp_path / "router"), "WISP_NATS_INBOX": users["router"].inbox}
        w.router()
        plane = cast("DataPlane", SimpleNamespace(server=w.nats, directory=tmp_path))
        environment = {
            "WISP_INGEST_PORT": str(free_port()),
            "WISP_NATS_CREDS": str(tmp_path / "ingest"),
            "WISP_NATS_INBOX": users["ingest"].inbox,
        }
        ingest = Part("ingest", plane, environment)
        await asyncio.to_thread(ingest.start)
        try:
            await w.delivered(5)
        finally:
            await asyncio.to_thread(ingest.stop)
        times = [datetime.fromisoformat(request.headers["ce-time"]) for request in w.function.finished]
        assert times == [times[0] + timedelta(seconds=n) for n in range(len(times))]
        assert {request.body for request in w.function.finished} == {b'{"report":"sales"}'}
    assert "violation" not in (tmp_path / "nats.log").read_text().lower()


async def subscribe(w: World) -> None:
    """Carry out what the operator plans for a Subscription that ticks every second."""
    item = make_subscription("every-second", source=schedule("* * * * * *", data={"report": "sales"}), order="key")
    item["metadata"]["creationTimestamp"] = datetime.now(UTC).isoformat(timespec="seconds")
    wish = decode(item)
    task, js = make_schedule(wish), w.client.jetstream(timeout=60)
    route = make_route(
        wish, task.stream, "", None, "cluster.local", Outlets(wish.live["metadata"]["namespace"], (), {})
    )
    route.targets = [Target(url=w.function.url)]
    await js.create_key_value(KeyValueConfig(bucket=names.KV_SCHEDULES, history=1, direct=True))
    await js.add_stream(name=task.stream, subjects=[stream_subjects("media", task.stream)], allow_direct=True)
    await w.put_route("media.every-second", msgspec.json.encode(route))
    await js.publish(f"$KV.{names.KV_SCHEDULES}.media.every-second", msgspec.json.encode(task))
