"""From a caller to the function: what the operator compiles, by ingest and router with the platform's own credentials."""

import asyncio
import json
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
from fixtures.dataplane import DataPlane, Part
from fixtures.function_server import MARKED
from fixtures.objects import make_function, make_subscription
from fixtures.process import free_port
from fixtures.router_world import NAMESPACE, World, world
from fixtures.tokens import Issuer, token_keys
from nats.js.api import KeyValueConfig
from wisp_api import names
from wisp_api.route import Target
from wisp_operator import nats_auth
from wisp_operator.config import OperatorConfig
from wisp_operator.event_plane import View, plan
from wisp_operator.sources import decode

CONFIG = OperatorConfig(namespace="wisp-system", runtimes={}, events_image="e", nats_url="nats://n")


def post(port: int, path: str, token: str, body: Any, content_type: str) -> int:
    """The status of a request."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": content_type}
    url = f"http://127.0.0.1:{port}/v1/namespaces/{NAMESPACE}/{path}"
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers), timeout=30) as answer:
        return int(answer.status)


async def test_events_and_invocations_reach_the_function(tmp_path: Path) -> None:
    """Those that the filter takes, of a key in order; an invocation's payload, and its record by the bus; a refused one is a dead letter."""
    seeds = {name: nats_auth.new_seed(prefix) for name, prefix in nats_auth.SEEDS.items()}
    users = {
        "operator": nats_auth.operator_user(),
        "router": nats_auth.router_user(),
        "ingest": nats_auth.ingest_user(),
    }
    for name, user in users.items():
        (tmp_path / name).write_text(nats_auth.make_credentials(seeds[nats_auth.ACCOUNT], user))
    config, issuer, port = nats_auth.make_server_config(seeds), Issuer(), free_port()
    async with world(tmp_path, config=config, credentials=tmp_path / "operator") as w:
        await carry_out(w, issuer)
        w.env = {"WISP_NATS_CREDS": str(tmp_path / "router"), "WISP_NATS_INBOX": users["router"].inbox}
        w.router()
        plane = cast("DataPlane", SimpleNamespace(server=w.nats, directory=tmp_path))
        environment = {
            "WISP_INGEST_PORT": str(port),
            "WISP_NATS_CREDS": str(tmp_path / "ingest"),
            "WISP_NATS_INBOX": users["ingest"].inbox,
        }
        ingest = Part("ingest", plane, environment)
        await asyncio.to_thread(ingest.start)
        await asyncio.to_thread(ingest.wait_ready)
        try:
            token = issuer.token(NAMESPACE)
            await w.active("on-order")
            await w.active("on-record")
            event = {"specversion": "1.0", "source": "/shop", "partitionkey": "k"}
            batch = [event | {"id": str(n), "type": f"order.{'new' if n % 3 else 'old'}"} for n in range(30)]
            batch += [{**event, "id": "free", "type": "order.new", "partitionkey": "l"}]
            status = await asyncio.to_thread(
                post, port, "buses/orders/events", token, batch, "application/cloudevents-batch+json"
            )
            assert status == 202
            await w.delivered(21)
            mine = [call.headers["ce-id"] for call in w.function.finished if call.headers["ce-partitionkey"] == "k"]
            assert mine == [str(n) for n in range(30) if n % 3]
            path = "functions/hello/invocations"
            assert await asyncio.to_thread(post, port, path, token, {"n": 1}, "application/json") == 202
            await w.delivered(23)
            invocation, record = w.function.finished[-2:]
            assert invocation.body == b'{"n": 1}'
            assert invocation.headers["ce-type"] == "dev.wisp.invocation"
            assert record.headers["ce-type"] == "dev.wisp.invocation.succeeded"
            assert record.json()["requestPayload"] == {"n": 1}
            w.function.answer = lambda _: (422, MARKED, b"")
            assert await asyncio.to_thread(post, port, path, token, {"n": 2}, "application/json") == 202
            [letter] = await w.dead_letters(1)
            assert (letter.reason, letter.source, letter.subscription) == ("Rejected", "function/hello", None)
        finally:
            await asyncio.to_thread(ingest.stop)
    assert "violation" not in (tmp_path / "nats.log").read_text().lower()


async def carry_out(w: World, issuer: Issuer) -> None:
    """Do what the operator does with a Function that takes invocations and a Subscription to a bus."""
    item = make_subscription(
        "on-order", NAMESPACE, source={"bus": {"name": "orders"}}, order="key", filter={"type": ["order.new"]}
    )
    record = make_subscription(
        "on-record", NAMESPACE, source={"bus": {"name": "orders"}}, filter={"type": ["dev.wisp.invocation.succeeded"]}
    )
    spec: dict[str, Any] = {"async": {"onSuccess": {"bus": {"name": "orders"}}}}
    view = View(
        NAMESPACE, [decode(item), decode(record)], functions={"hello": make_function("hello", NAMESPACE, **spec)}
    )
    made, js = plan(view, CONFIG, "cluster"), w.client.jetstream(timeout=60)
    await js.create_key_value(KeyValueConfig(bucket=names.KV_SCHEDULES, history=1, direct=True))
    for name, subjects in made.streams.items():
        await js.add_stream(name=name, subjects=[subjects], allow_direct=True, duplicate_window=120)
    values: dict[str, msgspec.Struct] = {**made.inboxes, names.TOKEN_KEYS: token_keys(issuer)}
    for key, value in values.items():
        await js.publish(f"$KV.{names.KV_SOURCES}.{key}", msgspec.json.encode(value))
    for name, route in made.routes.items():
        route.targets = [Target(url=w.function.url)]
        await w.put_route(f"{NAMESPACE}.{name}", msgspec.json.encode(route))
